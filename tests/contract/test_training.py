"""From files to a LoRA and back to pictures: the same for every architecture."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from musubi import (
    BlockSwap,
    Cache,
    CancelToken,
    Dataset,
    FP8Scaled,
    GradientCheckpointing,
    LoRA,
    LoRAFile,
    Pipeline,
    StepEnded,
    Trainer,
    TrainResult,
)
from musubi.architecture import Architecture
from musubi.memory.policy import MemoryPolicy
from tests.contract.conftest import CPU, Running

Any_Trainer = Trainer[Architecture]


@pytest.fixture(scope="session")
def cache(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Cache[Architecture]:
    """Return a cache of three captioned pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(random.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture number {i}", encoding="utf-8")
    data = Dataset.from_folder(folder, resolution=48).with_geometry(running.spec.geometry)
    return Cache(folder / "cache", model=running.spec).build(data, progress=False)


@pytest.fixture
def trainer(running: Running, cache: Cache[Architecture], tmp_path: Path) -> Any_Trainer:
    return Trainer(model=running.spec, cache=cache, steps=2, output=tmp_path, network=LoRA(rank=2), device="cpu")


def equal(one: LoRAFile, other: LoRAFile) -> bool:
    pairs = zip(one.tensors().items(), other.tensors().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def run(trainer: Any_Trainer, output: Path, resume: Path | None = None) -> TrainResult:
    return trainer.replace(output=output).run(resume=resume, progress=False)


def test_a_few_steps_train_every_adapter(trainer: Any_Trainer) -> None:
    result = trainer.run(progress=False)

    assert len(result.losses) == 2
    assert np.isfinite(result.losses).all()
    assert not any(weights.zero_effect for weights in result.lora.modules.values())


def test_training_leaves_the_base_as_it_was(running: Running, trainer: Any_Trainer) -> None:
    with trainer.start() as training:
        for _ in training:
            pass

    again = running.denoiser.load(running.spec.experts[0], device=CPU, dtype=torch.float32)

    assert all(torch.equal(p, again.get_parameter(n)) for n, p in running.model.named_parameters())


def test_two_steps_are_one_and_one(trainer: Any_Trainer, tmp_path: Path) -> None:
    whole = run(trainer, tmp_path / "whole")
    half = run(trainer.replace(steps=1), tmp_path / "half")

    resumed = run(trainer, tmp_path / "half", resume=half.state)

    assert resumed.losses == whole.losses
    assert equal(resumed.lora, whole.lora)


def test_a_cancelled_run_ends_saved(trainer: Any_Trainer) -> None:
    with trainer.replace(steps=50).start() as training:
        for event in training:
            if isinstance(event, StepEnded):
                threading.Thread(target=training.cancel).run()

    assert training.result.reason == "cancelled"
    assert training.result.steps == 1
    assert training.result.path.exists()


@pytest.mark.parametrize(
    "policies",
    [(GradientCheckpointing(),), (BlockSwap(blocks=1),), (FP8Scaled(),), (FP8Scaled(), BlockSwap(blocks=1))],
    ids=lambda policies: "+".join(policy.kind for policy in policies),
)
def test_memory_policies_train_alike(trainer: Any_Trainer, tmp_path: Path, policies: Sequence[MemoryPolicy]) -> None:
    plain = run(trainer, tmp_path / "plain")

    frugal = run(trainer.with_memory(*policies), tmp_path / "frugal")

    exact = not any(isinstance(policy, FP8Scaled) for policy in policies)
    assert frugal.losses == plain.losses if exact else frugal.losses == pytest.approx(plain.losses, rel=0.2)


def test_a_trained_lora_draws_the_same_from_memory_and_from_its_file(running: Running, trainer: Any_Trainer) -> None:
    result = trainer.run(progress=False)
    pipeline = Pipeline(model=running.spec, device="cpu")

    drawn = [
        pipeline.with_lora(lora).generate("picture number 1", size=(48, 48), frames=1, steps=2, seed=1).to_numpy()
        for lora in (result.lora, result.path)
    ]
    bare = pipeline.generate("picture number 1", size=(48, 48), frames=1, steps=2, seed=1).to_numpy()

    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != bare).any()


def test_a_cancelled_build_is_continued(running: Running, cache: Cache[Architecture], tmp_path: Path) -> None:
    data = Dataset.from_folder(cache.path.parent, resolution=48).with_geometry(running.spec.geometry)
    token = CancelToken()
    token.cancel()
    other = Cache(tmp_path / "cache", model=running.spec)

    other.build(data, progress=False, cancel=token)
    finished = other.build(data, progress=False)

    assert [c.item.name for c in finished.items()] == [c.item.name for c in cache.items()]
    assert finished.verify() == ()
