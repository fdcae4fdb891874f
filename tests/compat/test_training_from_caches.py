"""musubi-tuner's caches of image models are trained with as they are, without encoding anything again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from musubi import AdamW, FluxKontextCache, FluxKontextTrainer, LoRA, QwenImageCache, QwenImageTrainer, compat
from musubi.testing.flux_kontext import tiny_flux_kontext
from musubi.testing.qwen_image import tiny_qwen_image
from tests.compat import reference_files as files


def write_edits(folder: Path) -> Path:
    """Write two items of one picture to change and one of two."""
    folder.mkdir()
    for number, (stem, count) in enumerate({"a": 1, "b": 1, "c": 2}.items()):
        extra = {
            f"latents_control_{i}_1x4x{6 + 2 * i}_bfloat16": files.tensor(16, 1, 4, 6 + 2 * i) for i in range(count)
        }
        files.picture(folder, stem, arch="qie", full="qwen_image", extra=extra, seed=number)
        text = {"varlen_vl_embed_bfloat16": files.tensor(4 + number, 64)}
        files.text(folder, stem, arch="qie", full="qwen_image", tensors=text)
    return folder


def write_kontext(folder: Path) -> Path:
    """Write two items, whose latents have no place for a frame."""
    folder.mkdir()
    for number, stem in enumerate("ab"):
        tensors: Mapping[str, Tensor] = {
            "latents_1x6x8_float32": files.tensor(16, 6, 8, seed=number).float(),
            "latents_control_1x4x6_float32": files.tensor(16, 4, 6, seed=number).float(),
        }
        path = folder / f"{stem}_0640x0480_fk.safetensors"
        files.saved(path, dict(tensors), architecture="flux_kontext", width=640, height=480)
        text = {"t5_vec_bfloat16": files.tensor(512, 32), "clip_l_pooler_bfloat16": files.tensor(32)}
        files.text(folder, stem, arch="fk", full="flux_kontext", tensors=text)
    return folder


def test_qwen_image_edit(tmp_path: Path) -> None:
    model = tiny_qwen_image(tmp_path / "files", task="edit_2509")
    compat.import_cache(write_edits(tmp_path / "cache"), model=model, batch_size=2)
    cache = QwenImageCache(tmp_path / "cache", model=model)
    trainer = QwenImageTrainer(
        model=model, cache=cache, steps=4, output=tmp_path, network=LoRA(rank=2), optimizer=AdamW(lr=1e-3)
    )

    result = trainer.run(progress=False)

    assert np.isfinite(result.losses).all()
    assert sorted(map(len, cache.loader(seed=0).epoch(0))) == [1, 2]
    assert [row.tokens for row in trainer.plan().rows] != []


def test_flux_kontext(tmp_path: Path) -> None:
    model = tiny_flux_kontext(tmp_path / "files")
    compat.import_cache(write_kontext(tmp_path / "cache"), model=model, batch_size=2)
    cache = FluxKontextCache(tmp_path / "cache", model=model)
    trainer = FluxKontextTrainer(
        model=model, cache=cache, steps=4, output=tmp_path, network=LoRA(rank=2), optimizer=AdamW(lr=1e-3)
    )

    result = trainer.run(progress=False)

    assert np.isfinite(result.losses).all()
    assert [row.tokens for row in trainer.plan().rows] == [2 * 3 * 4]
