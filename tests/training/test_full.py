from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from musubi import (
    EMA,
    Adafactor,
    AdamW,
    BlockSwap,
    Cache,
    ConfigError,
    Constant,
    Event,
    FP8Scaled,
    FullFineTune,
    GradientCheckpointing,
    LoRA,
    PriorPreservation,
    Prodigy,
    Saved,
    StepEnded,
    Trainer,
    TrainResult,
    WanCache,
    WanDataset,
    WanTrainer,
    Warned,
)
from musubi.networks.full import WeightsType
from musubi.optim.optimizers import Optimizer
from musubi.testing.checkpoints import tiny_wan
from musubi.testing.toy import Toy
from musubi.training.planning import cost
from musubi.training.state import RunState

WAYS: dict[str, tuple[WeightsType, Optimizer]] = {
    "float32": ("float32", AdamW(lr=1e-3)),
    "float32 fused AdamW": ("float32", AdamW(lr=1e-3, fused_backward=True)),
    "float32 fused Adafactor": ("float32", Adafactor(lr=1e-3, fused_backward=True)),
    "bfloat16": ("bfloat16", AdamW(lr=1e-3)),
    "bfloat16 fused AdamW": ("bfloat16", AdamW(lr=1e-3, fused_backward=True)),
    "bfloat16 fused Adafactor": ("bfloat16", Adafactor(lr=1e-3, fused_backward=True)),
}


@pytest.fixture
def full(cache: Cache[Toy], tmp_path: Path) -> Trainer[Toy]:
    return Trainer(
        model=Toy(),
        cache=cache,
        steps=10,
        output=tmp_path / "out",
        name="model",
        seed=3,
        network=FullFineTune(),
        optimizer=AdamW(lr=1e-3),
        device="cpu",
    )


def in_way(trainer: Trainer[Toy], way: str) -> Trainer[Toy]:
    weights, optimizer = WAYS[way]
    network = FullFineTune(weights=weights)
    return trainer.replace(network=network, optimizer=optimizer, precision="bfloat16")


def equal(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def until(trainer: Trainer[Toy], step: int) -> Path:
    with trainer.start() as run:
        for event in run:
            if isinstance(event, StepEnded) and event.step == step:
                run.cancel()
    return run.state


@pytest.mark.parametrize("way", WAYS)
def test_the_model_learns(full: Trainer[Toy], way: str) -> None:
    result = in_way(full, way).replace(steps=40).run(progress=False)

    first, last = sum(result.losses[:8]), sum(result.losses[-8:])
    assert last < 0.7 * first
    assert not result.zero_effect
    weights, _ = WAYS[way]
    assert {tensor.dtype for tensor in load_file(result.path).values()} == {getattr(torch, weights)}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_stopped_and_resumed_equals_an_undisturbed_one_bit_for_bit(
    full: Trainer[Toy], tmp_path: Path, way: str
) -> None:
    trainer = in_way(full, way)
    undisturbed = trainer.run(progress=False)
    halves = trainer.replace(output=tmp_path / "halves")

    second = halves.run(resume=until(halves, 4), progress=False)

    assert undisturbed.losses == second.losses
    assert equal(undisturbed.path, second.path)
    one, other = RunState.load(undisturbed.state), RunState.load(second.state)
    assert all(torch.equal(one.trained[name], other.trained[name]) for name in one.trained)


def test_the_averages_are_what_is_saved_and_they_resume_bit_for_bit(full: Trainer[Toy], tmp_path: Path) -> None:
    trainer = full.with_ema(EMA(decay=0.9))
    undisturbed = trainer.run(progress=False)
    halves = trainer.replace(output=tmp_path / "halves")

    second = halves.run(resume=until(halves, 4), progress=False)

    assert equal(undisturbed.path, second.path)
    state = RunState.load(undisturbed.state)
    saved = load_file(undisturbed.path)["patch_out.weight"]
    assert torch.equal(saved, state.averages["model.patch_out.weight"])
    assert not torch.equal(saved, state.trained["model.patch_out.weight"])


def test_updates_too_small_for_bfloat16_add_up_all_the_same(full: Trainer[Toy]) -> None:
    trainer = in_way(full, "bfloat16").replace(steps=60, optimizer=AdamW(lr=2e-5))
    result = trainer.run(progress=False)

    before = Toy().denoiser().load(Toy().experts[0], device=torch.device("cpu"), dtype=torch.bfloat16)
    moved = load_file(result.path)["patch_out.weight"].float() - before.get_parameter("patch_out.weight").float()
    # Every update is at most 2e-5, a hundredth of the distance between neighbouring numbers here.
    assert 1e-4 < float(moved.abs().mean()) < 60 * 2e-5


@contextmanager
def live_gradients(model: nn.Module) -> Iterator[list[int]]:
    """Note how many numbers all gradients have whenever one more is complete."""
    seen: list[int] = []

    def look(_: torch.Tensor) -> None:
        seen.append(sum(p.grad.numel() for p in model.parameters() if p.grad is not None))

    handles = [p.register_post_accumulate_grad_hook(look) for p in model.parameters() if p.requires_grad]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_fused_backward_never_holds_more_than_one_gradient(
    full: Trainer[Toy], monkeypatch: pytest.MonkeyPatch, *, checkpointed: bool
) -> None:
    from musubi.training.stepper import Stepper

    peaks: dict[bool, int] = {}
    sizes: list[int] = []
    original = Stepper.advance

    def advance(self: Stepper) -> object:
        model = self._setup.model
        sizes[:] = [p.numel() for p in model.parameters()]
        with live_gradients(model) as seen:
            event = original(self)
        assert all(p.grad is None for p in model.parameters())
        fused = self._trainer.optimizer.fused_backward
        peaks[fused] = max(peaks.get(fused, 0), *seen)
        return event

    monkeypatch.setattr(Stepper, "advance", advance)
    policies = [GradientCheckpointing()] if checkpointed else []
    for fused in (False, True):
        full.with_memory(*policies).with_optimizer(AdamW(fused_backward=fused)).replace(steps=2).run(progress=False)

    assert peaks[False] == sum(sizes)
    # The fused update comes before the look: what is left is nothing.
    assert peaks[True] == 0


def test_checkpointing_changes_no_bit(full: Trainer[Toy], tmp_path: Path) -> None:
    trainer = in_way(full, "bfloat16 fused Adafactor")
    other = trainer.replace(output=tmp_path / "other").with_memory(GradientCheckpointing())

    assert equal(trainer.run(progress=False).path, other.run(progress=False).path)


def test_events_and_result_speak_of_a_model(full: Trainer[Toy]) -> None:
    heard: list[Event] = []

    result = full.with_checkpoints(save_every=5).run(on=[heard.append], progress=False)

    assert [event.what for event in heard if isinstance(event, Saved)] == ["model", "model", "state"]
    with pytest.raises(ConfigError, match="the model itself was trained"):
        _ = result.lora
    assert "model.safetensors" in result._repr_html_()


def test_the_file_says_how_it_was_made_but_names_no_network(full: Trainer[Toy]) -> None:
    from safetensors import safe_open

    with safe_open(full.run(progress=False).path, "pt") as file:
        metadata = file.metadata()

    assert metadata["ss_steps"] == "10"
    assert not [key for key in metadata if key.startswith("ss_network")]


def test_a_rate_of_zero_is_told(full: Trainer[Toy]) -> None:
    heard: list[Event] = []

    result = full.with_optimizer(AdamW(lr=0.0, weight_decay=0.0)).run(on=[heard.append], progress=False)

    assert result.zero_effect
    messages = [event.message for event in heard if isinstance(event, Warned)]
    assert messages == ["the training had no effect: all weights are still the base model's (was the learning rate 0?)"]


def test_samples_are_drawn_with_the_trained_model(full: Trainer[Toy]) -> None:
    result = full.with_samples("a picture").run(progress=False)

    before, after = (path.read_bytes() for path in sorted(result.samples))
    assert before != after


def test_a_lora_merged_first_is_part_of_what_is_trained(full: Trainer[Toy], tmp_path: Path) -> None:
    lora: TrainResult = (
        full.replace(output=tmp_path / "lora", optimizer=AdamW(lr=1e-2)).with_network(LoRA()).run(progress=False)
    )
    still = full.replace(steps=1).with_optimizer(AdamW(lr=0.0, weight_decay=0.0))

    merged = still.with_base_lora(lora.lora).run(progress=False)

    name = "blocks.0.attn.qkv"
    base = Toy().denoiser().load(Toy().experts[0], device=torch.device("cpu"), dtype=torch.float32)
    rows = torch.cat([base.get_parameter(f"blocks.0.attn.to_{part}.weight") for part in "qkv"])
    delta = load_file(merged.path)[f"{name}.weight"] - rows
    torch.testing.assert_close(delta, lora.lora.modules[name].delta(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"memory": (FP8Scaled(),)}, r"memory\[0\]: FP8Scaled quantises"),
        ({"memory": (GradientCheckpointing(), BlockSwap(blocks=1))}, r"memory\[1\]: BlockSwap never copies"),
        ({"initial": "some.safetensors"}, "initial: is a LoRA"),
        ({"network": FullFineTune(weights="bfloat16"), "precision": "float32"}, "network.weights: is 'bfloat16'"),
        ({"model": Toy().with_weights(dit="out/model.safetensors"), "output": "out"}, "output: .* base model's own"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(
    full: Trainer[Toy], change: dict[str, object], path: str
) -> None:
    with pytest.raises(ConfigError, match=path):
        full.replace(**change)


def test_a_prior_of_the_base_model_is_refused_and_one_of_data_is_not(full: Trainer[Toy], cache: Cache[Toy]) -> None:
    with pytest.raises(ConfigError, match=r"prior\.target"):
        full.with_prior(PriorPreservation(cache=cache))

    assert full.with_prior(PriorPreservation(cache=cache, target="data")).run(progress=False).steps == 10


def test_the_plan_counts_weights_gradients_and_moments_once(full: Trainer[Toy]) -> None:
    network = FullFineTune(weights="bfloat16")
    numbers = network.trainable(Toy().denoiser().empty(Toy().experts[0]), keys=Toy().keys, layout=Toy().layout)
    plans = {way: in_way(full, way).plan().peak for way in WAYS}
    costs = {way: cost(in_way(full, way), torch.bfloat16) for way in WAYS}
    taken = {
        way: 0 if row is None else row.weights / numbers + costs[way].device + costs[way].gradient
        for way, row in plans.items()
    }

    # Weight, gradient and two moments; fused ones have no gradients, Adafactor's moments are small.
    assert taken["float32"] == pytest.approx(4 + 4 + 8)
    assert taken["bfloat16"] == pytest.approx(2 + 2 + 8)
    assert taken["float32 fused Adafactor"] == pytest.approx(4)
    assert taken["bfloat16 fused AdamW"] == pytest.approx(2 + 8)
    assert taken["bfloat16 fused Adafactor"] == pytest.approx(2)


def test_wan_is_trained_whole_and_loads_again(tmp_path: Path) -> None:
    wan = tiny_wan(tmp_path / "wan")
    (tmp_path / "pictures").mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (32, 32), colour).save(tmp_path / "pictures" / f"{colour}.png")
        (tmp_path / "pictures" / f"{colour}.txt").write_text(colour, encoding="utf-8")
    data = WanDataset.from_folder(tmp_path / "pictures", resolution=32)
    trainer = WanTrainer(
        model=wan,
        cache=WanCache(tmp_path / "cache", model=wan).build(data, progress=False),
        steps=6,
        output=tmp_path / "out",
        network=FullFineTune(weights="bfloat16"),
        optimizer=Adafactor(lr=1e-3, fused_backward=True),
        precision="bfloat16",
        device="cpu",
    )

    result = trainer.run(progress=False)

    tuned, base = load_file(result.path), load_file(tmp_path / "wan" / "dit.safetensors")
    assert {name: tensor.shape for name, tensor in tuned.items()} == {n: t.shape for n, t in base.items()}
    assert all(
        not torch.equal(tuned[name].float(), base[name].bfloat16().float()) for name in itertools.islice(base, 5)
    )
    again = wan.with_weights(dit=result.path)
    model = again.denoiser().load(again.experts[0], device=torch.device("cpu"), dtype=torch.bfloat16)
    assert torch.equal(model.get_parameter("proj_out.weight"), tuned["head.head.weight"])
    assert tuned["time_projection.1.weight"].dtype == torch.float32


def test_an_optimizer_that_would_lose_small_updates_of_bfloat16_weights_is_refused(trainer: Trainer[Toy]) -> None:
    with pytest.raises(ConfigError, match="prodigy would lose small updates of bfloat16 weights"):
        trainer.replace(
            network=FullFineTune(weights="bfloat16"), precision="bfloat16", optimizer=Prodigy(), schedule=Constant()
        )
