"""The CLIP image encoder gives the reference's features, from checkpoints in the original layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.architectures.wan.clip import encode_images, load_clip, preprocess
from tests.parity.cases import golden, golden_stems, part

each_case = pytest.mark.parametrize("stem", golden_stems("models_wan_clip"))


@each_case
def test_models_wan_clip(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    heads = {"wan_clip.num_heads": str(meta["config"]["heads"])}
    save_file(part(tensors, "ckpt."), tmp_path / "clip.safetensors", metadata=heads)
    images = tensors["in.video"][:, :, 0]

    clip = load_clip(tmp_path / "clip.safetensors", device=torch.device("cpu"), dtype=torch.float32)
    features = encode_images(clip, images)

    pixels = preprocess(images, size=meta["config"]["image_size"])
    assert (pixels - tensors["out.pixel_values"]).abs().max() <= 1e-5
    assert (features - tensors["out.clip_context"]).abs().max() <= 1e-5
