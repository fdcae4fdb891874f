"""The whole of Qwen-Image is trained, by the recipe of the guide: from pictures to a checkpoint that draws others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file

from musubi import (
    Adafactor,
    AdamW,
    FullFineTune,
    GradientCheckpointing,
    NearArea,
    QwenImage,
    QwenImageCache,
    QwenImageDataset,
    QwenImagePipeline,
    QwenImageTrainer,
    Request,
)
from musubi.architectures.qwen_image.tasks import Task
from musubi.data.sources.folder import Folder
from musubi.testing.qwen_image import tiny_qwen_image

SIDE, STEPS = 32, 6


def picture(seed: int) -> Pillow.Image:
    return Pillow.fromarray(np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def trainer_of(model: QwenImage, folder: Path) -> QwenImageTrainer:
    (folder / "data" / "from").mkdir(parents=True)
    for number in range(3):
        picture(number).save(folder / "data" / f"{number}.png")
        picture(10 + number).save(folder / "data" / "from" / f"{number}.png")
        (folder / "data" / f"{number}.txt").write_text(f"picture {number}", encoding="utf-8")
    source = Folder(folder / "data", control=folder / "data" / "from" if model.edits else None)
    data = QwenImageDataset(sources=(source,), resolution=SIDE)
    if model.edits:
        data = data.with_control(size=NearArea(SIDE))
    cache = QwenImageCache(folder / "cache", model=model).build(data, progress=False)
    return QwenImageTrainer(
        model=model,
        cache=cache,
        steps=STEPS,
        output=folder / "out",
        network=FullFineTune(weights="bfloat16"),
        optimizer=Adafactor(lr=1e-2, fused_backward=True),
        precision="bfloat16",
    ).with_memory(GradientCheckpointing())


@pytest.mark.parametrize("task", ["text_to_image", "edit_2509", "edit_2511"])
def test_a_model_becomes_another_in_its_own_names(task: Task, tmp_path: Path) -> None:
    model = tiny_qwen_image(tmp_path / "files", task=task)

    result = trainer_of(model, tmp_path).run(progress=False)

    before, after = load_file(tmp_path / "files" / "dit.safetensors"), load_file(result.path)
    assert result.steps == STEPS
    assert np.isfinite(result.losses).all()
    assert {name: t.shape for name, t in after.items()} == {name: t.shape for name, t in before.items()}
    changed = [name for name, t in before.items() if not torch.equal(after[name].float(), t.bfloat16().float())]
    assert len(changed) > 0.8 * len(before)
    shown = {"control": picture(20), "control_size": NearArea(SIDE)} if model.edits else {}
    request = Request("a picture", size=(SIDE, SIDE), steps=2, seed=1).replace(**shown)
    drawn, usual = (
        QwenImagePipeline(model=one, device="cpu").draw_latents(request).tensor
        for one in (model.with_weights(dit=result.path), model)
    )
    assert torch.isfinite(drawn).all()
    assert (drawn - usual).abs().mean() > 1e-3


def test_its_memory_is_planned(tmp_path: Path) -> None:
    trainer = trainer_of(tiny_qwen_image(tmp_path / "files"), tmp_path)

    (frugal,) = trainer.plan().rows
    (usual,) = trainer.with_optimizer(AdamW(lr=1e-5)).plan().rows

    count = sum(t.numel() for t in load_file(tmp_path / "files" / "dit.safetensors").values())
    assert frugal.weights >= 2 * count
    assert frugal.trained < 0.5 * count
    assert usual.trained >= 8 * count
