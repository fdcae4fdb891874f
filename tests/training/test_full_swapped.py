"""Training all of a model's weights while most of its blocks wait on the host: every bit as if all were resident."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from musubi import (
    EMA,
    Adafactor,
    AdamW,
    BlockSwap,
    ConfigError,
    FullFineTune,
    GradientCheckpointing,
    Lion,
    StepEnded,
    Targets,
    TrainResult,
    Validation,
    WanCache,
    WanDataset,
    WanTrainer,
)
from musubi.optim.optimizers import Optimizer
from musubi.testing.checkpoints import tiny_wan
from musubi.training.state import RunState

BLOCKS = 4
OPTIMIZERS: dict[str, Optimizer] = {
    "AdamW": AdamW(lr=1e-3, fused_backward=True),
    "Adafactor": Adafactor(lr=1e-3, fused_backward=True),
    "Lion": Lion(lr=1e-4, fused_backward=True),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> WanCache:
    folder = tmp_path_factory.mktemp("wan")
    wan = tiny_wan(folder / "wan", num_layers=BLOCKS)
    (folder / "pictures").mkdir()
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (32, 32), colour).save(folder / "pictures" / f"{colour}.png")
        (folder / "pictures" / f"{colour}.txt").write_text(colour, encoding="utf-8")
    data = WanDataset.from_folder(folder / "pictures", resolution=32).with_validation(share=0.34)
    return WanCache(folder / "cache", model=wan).build(data, progress=False)


@pytest.fixture
def trainer(cache: WanCache, tmp_path: Path) -> WanTrainer:
    return WanTrainer(
        model=cache.model,
        cache=cache,
        steps=5,
        output=tmp_path / "resident",
        name="model",
        network=FullFineTune(),
        optimizer=OPTIMIZERS["AdamW"],
        device="cpu",
    )


def swapped(trainer: WanTrainer, blocks: int = BLOCKS - 1) -> WanTrainer:
    """Return the same trainer, with all blocks but one swapped and what it writes in a folder of its own."""
    output = trainer.output.with_name("swapped")
    return trainer.replace(output=output, memory=(*trainer.memory, BlockSwap(blocks=blocks, write_back=True)))


def same(one: TrainResult, other: TrainResult) -> bool:
    """Tell whether two runs have the same losses, files and states, bit for bit."""
    states = [RunState.load(result.state) for result in (one, other)]
    pairs = (
        (load_file(one.path), load_file(other.path)),
        (states[0].trained, states[1].trained),
        (states[0].averages, states[1].averages),
    )
    return one.losses == other.losses and all(
        first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
        for first, second in pairs
    )


@pytest.mark.parametrize(
    ("optimizer", "precision", "checkpointed"),
    [
        ("AdamW", "float32", False),
        ("AdamW", "bfloat16", True),
        ("Adafactor", "float32", True),
        ("Adafactor", "bfloat16", False),
        ("Lion", "float32", True),
    ],
)
def test_a_swapped_run_learns_what_a_resident_one_learns_bit_for_bit(
    trainer: WanTrainer, optimizer: str, precision: str, *, checkpointed: bool
) -> None:
    resident = trainer.replace(
        network=FullFineTune(weights=precision),  # type: ignore[arg-type]
        optimizer=OPTIMIZERS[optimizer],
        precision=precision,
        memory=(GradientCheckpointing(),) if checkpointed else (),
    )

    assert same(resident.run(progress=False), swapped(resident).run(progress=False))


def test_it_does_learn(trainer: WanTrainer, cache: WanCache) -> None:
    result = swapped(trainer).run(progress=False)

    before, after = load_file(cache.model.weight("dit").resolve()), load_file(result.path)
    assert not any(torch.equal(before[name], after[name]) for name in after if name.endswith(".weight"))


def test_averages_validation_and_samples_are_those_of_the_resident_run(trainer: WanTrainer) -> None:
    watched = trainer.replace(validation=Validation(every=2)).with_ema(EMA(decay=0.9))
    sampled = watched.with_samples("red", every=2)

    one, other = sampled.run(progress=False), swapped(sampled).run(progress=False)

    assert same(one, other)
    assert one.validations == other.validations
    assert [path.read_bytes() for path in one.samples] == [path.read_bytes() for path in other.samples]


def test_a_part_of_the_weights_is_trained_while_the_rest_streams_frozen(trainer: WanTrainer) -> None:
    part = trainer.with_network(FullFineTune(targets=Targets(exclude=(r"blocks\.[02]\..*", r"head.*"))))

    assert same(part.run(progress=False), swapped(part).run(progress=False))


def test_a_run_that_was_stopped_goes_on_bit_for_bit_resident_or_not(trainer: WanTrainer) -> None:
    averaged = trainer.with_ema(EMA(decay=0.9))
    undisturbed = averaged.run(progress=False)

    for first, second in ((swapped, swapped), (swapped, lambda t: t), (lambda t: t, swapped)):
        output = trainer.output.with_name("stopped")
        state = _stopped(first(averaged).replace(output=output), 2)
        again = second(averaged).replace(output=output).run(resume=state, progress=False)
        assert same(undisturbed, again)


def test_going_back_after_a_number_that_is_not_finite_needs_updates_that_wait(trainer: WanTrainer) -> None:
    with pytest.raises(ConfigError, match="on_nonfinite"):
        swapped(trainer).replace(on_nonfinite="roll_back")


def _stopped(trainer: WanTrainer, step: int) -> Path:
    with trainer.start() as run:
        for event in run:
            if isinstance(event, StepEnded) and event.step == step:
                run.cancel()
    return run.state
