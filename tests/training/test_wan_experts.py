"""Both experts of Wan 2.2 in one run, on a tiny pair: who learns from which levels, and what the device holds."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from musubi import (
    AdamW,
    BlockSwap,
    GradientCheckpointing,
    LoRA,
    Shift,
    StepEnded,
    Wan,
    WanCache,
    WanDataset,
    WanTrainer,
)
from musubi.core.events import Event
from musubi.memory.experts import Experts, swapped_experts
from musubi.testing.checkpoints import tiny_wan
from musubi.training.accumulation import Accumulation
from musubi.training.material import Material
from musubi.training.processes import Processes
from musubi.training.setup import Setup
from tests.training.test_many_processes import distance, launch

STEPS, BOUNDARY = 6, 0.875


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return tiny_wan(tmp_path_factory.mktemp("pair"), task="t2v_a14b", dim=128, num_layers=4)


@pytest.fixture(scope="module")
def pair_cache(pair: Wan, tmp_path_factory: pytest.TempPathFactory) -> WanCache:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"noise number {number}", encoding="utf-8")
    data = WanDataset.from_folder(folder, resolution=32).with_batch_size(2)
    return WanCache(folder / "cache", model=pair).build(data, progress=False)


@pytest.fixture
def trainer(pair: Wan, pair_cache: WanCache, tmp_path: Path) -> WanTrainer:
    return WanTrainer(
        model=pair,
        cache=pair_cache,
        steps=STEPS,
        output=tmp_path / "out",
        seed=5,
        network=LoRA(rank=2),
        optimizer=AdamW(lr=1e-2),
        device="cpu",
    )


def levels_of(trainer: WanTrainer) -> list[float]:
    """Return the noise levels that a run draws, in their order."""
    events: list[Event] = []
    trainer.run(on=[events.append], progress=False)
    return [level for event in events if isinstance(event, StepEnded) for level in event.sigma]


def test_gradients_reach_only_the_adapter_of_the_expert_whose_range_was_drawn(trainer: WanTrainer) -> None:
    met, processes = set[tuple[str, ...]](), Processes("cpu")

    with ExitStack() as stack:
        setup = Setup.open(trainer, processes, Material.open(trainer, processes), stack)
        batches = Accumulation(setup, trainer, taken=0)
        stack.callback(batches.close)
        for number in range(16):
            (seen,) = batches.add_up(step=number + 1, taken=number)
            drawn = {"high" if level >= BOUNDARY else "low" for level in seen.sigma}
            reached = {name.split(".")[1] for name, p in setup.trained.named_parameters() if p.grad is not None}
            assert reached == drawn
            assert all(p.grad is None for p in setup.model.parameters())
            met.add(tuple(sorted(drawn)))
            setup.optimizer.zero_grad()

    assert met == {("high",), ("low",), ("high", "low")}


def test_levels_are_drawn_as_for_one_model(trainer: WanTrainer, tmp_path: Path) -> None:
    """The very levels that a model without experts is trained on, and those of the distribution."""
    asked = trainer.with_timesteps(Shift(shift=12.0)).replace(accumulate=4)
    files = trainer.model.weights
    one = Wan.t2v_14b().with_weights(dit=files["dit_low"], **{n: files[n] for n in ("vae", "t5", "tokenizer")})
    alone = asked.replace(model=one, cache=attrs.evolve(asked.cache, model=one), output=tmp_path / "alone")

    ours = levels_of(asked)

    assert ours == levels_of(alone)
    drawn = Shift(shift=12.0).sample(20_000, tokens=4, generator=torch.Generator().manual_seed(0))
    share = float((drawn >= BOUNDARY).float().mean())
    found = sum(level >= BOUNDARY for level in ours) / len(ours)
    assert abs(found - share) < 4 * (share * (1 - share) / len(ours)) ** 0.5


def test_the_device_holds_one_expert_and_both_adapters(trainer: WanTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    @contextmanager
    def watched(*models: Any, **how: Any) -> Generator[Experts]:
        with swapped_experts(*models, **how) as experts:
            yield experts
            held.append(experts.device_bytes)

    monkeypatch.setattr("musubi.memory.together.swapped_experts", watched)
    plain = load(trainer.replace(output=trainer.output / "plain"))

    swapped = load(trainer.with_memory(GradientCheckpointing(), BlockSwap(blocks=1)))

    denoiser = trainer.model.denoiser()
    expert = sum(parameter.nbytes for parameter in denoiser.empty(trainer.model.experts[0]).parameters())
    assert 0 < held[0] <= expert
    assert all(torch.equal(plain[name], swapped[name]) for name in plain)


def load(trainer: WanTrainer) -> dict[str, torch.Tensor]:
    """Return all that a run trained."""
    result = trainer.run(progress=False)
    return {f"{name} {key}": value for name, path in result.experts.items() for key, value in load_file(path).items()}


def test_two_processes_train_both_experts_as_one_process_does(trainer: WanTrainer, tmp_path: Path) -> None:
    one = trainer.replace(output=tmp_path / "one", accumulate=2)
    told = launch(tmp_path / "script", one.replace(output=tmp_path / "two", accumulate=1))

    one.run(progress=False)

    levels = [[level for step in rank["steps"] for level in step["sigma"]] for rank in told]
    assert levels[0] != levels[1]
    for name in ("high", "low"):
        file = f"lora-{name}.safetensors"
        assert distance(tmp_path / "one" / file, tmp_path / "two" / file) <= 1e-6
    shutil.rmtree(tmp_path / "two")
