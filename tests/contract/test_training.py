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
    OwnSize,
    Pipeline,
    Request,
    StepEnded,
    Trainer,
    TrainResult,
)
from musubi.architecture import Architecture
from musubi.data.sources.folder import Folder
from musubi.memory.policy import MemoryPolicy
from tests.contract.conftest import CPU, Running
from tests.contract.kinds import idle

Any_Trainer = Trainer[Architecture]


@pytest.fixture(scope="session")
def cache(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Cache[Architecture]:
    """Return a cache of three captioned pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "controls").mkdir()
    for i in range(3):
        picture(i).save(folder / f"{i}.png")
        picture(10 + i).save(folder / "controls" / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture number {i}", encoding="utf-8")
    return Cache(folder / "cache", model=running.spec).build(dataset(running, folder), progress=False)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 48, 3), dtype=np.uint8))


def dataset(running: Running, folder: Path) -> Dataset:
    """Return the pictures of a folder, each with what it is made from where a model wants that."""
    control = folder / "controls" if running.spec.roles.required else None
    data = Dataset(sources=(Folder(folder, control=control),), resolution=48).with_geometry(running.spec.geometry)
    return data if control is None else data.with_control(size=OwnSize())


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
    for name, weights in result.lora.modules.items():
        assert weights.zero_effect == idle(trainer.model.kind, name), name


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
    request = Request("picture number 1", size=(48, 48), frames=1, steps=2, seed=1)
    if running.spec.roles.required:
        request = request.replace(control=picture(5), control_size=OwnSize())

    drawn = [pipeline.with_lora(lora).draw(request).to_numpy() for lora in (result.lora, result.path)]
    bare = pipeline.draw(request).to_numpy()

    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != bare).any()


def test_a_cancelled_build_is_continued(running: Running, cache: Cache[Architecture], tmp_path: Path) -> None:
    data = dataset(running, cache.path.parent)
    token = CancelToken()
    token.cancel()
    other = Cache(tmp_path / "cache", model=running.spec)

    other.build(data, progress=False, cancel=token)
    finished = other.build(data, progress=False)

    assert [c.item.name for c in finished.items()] == [c.item.name for c in cache.items()]
    assert finished.verify() == ()
