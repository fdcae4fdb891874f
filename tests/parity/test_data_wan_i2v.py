"""The conditions of Wan's image and control models, laid out as the reference caches them.

The reference fails on a picture with a control picture (a TypeError); here the control is encoded like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.architectures.wan.conditions import latents_control, latents_image
from musubi.architectures.wan.vae import scaled
from musubi.cache.format import content_name, metadata, tensor_key
from musubi.data.sample import Item, Window
from tests.parity.cases import vector_cases

SIZE, FIRST = (32, 16), 50


def encode(video_BCFHW: Tensor) -> Tensor:
    """Stand in for the VAE as the reference's stub does: every latent frame holds its first frame's value."""
    frames = torch.cat([video_BCFHW[:, :1, :1], video_BCFHW[:, :1, 1::4]], dim=2)
    return frames[..., ::8, ::8].expand(-1, 16, -1, -1, -1).bfloat16()


def clip(case: dict[str, Any]) -> Tensor:
    """Return a clip (B, C, F, H, W) in [-1, 1] whose frames have the values 50, 51, 52, ..."""
    values = FIRST + torch.arange(case["frame_count"] or 1)
    pixels = values.clamp(max=255).to(torch.uint8).view(1, -1, 1, 1, 1)
    return scaled(pixels.expand(1, -1, SIZE[1], SIZE[0], 3))


def made(case: dict[str, Any]) -> dict[str, Tensor]:
    """Return what is cached of a case's item; CLIP's features, of a stub there, are made up here, too."""
    video = clip(case)
    tensors = {"latents": encode(video)[0]}
    if case["i2v"]:
        tensors["latents_image"] = latents_image(encode, video[:, :, 0], frames=video.shape[2])[0]
    if case["clip"]:
        tensors["clip"] = torch.zeros(257, 1280, dtype=torch.float16)
    if case["control"]:
        tensors["latents_control"] = latents_control(encode, video, frames=video.shape[2])[0]
    return tensors


def label(case: dict[str, Any]) -> str:
    return "-".join([str(case["frame_count"]), *(name for name in ("i2v", "clip", "control") if case[name])])


@pytest.mark.parametrize("case", vector_cases("data_wan_i2v"), ids=label)
def test_data_wan_i2v(case: dict[str, Any]) -> None:
    if "error" in case and (case["frame_count"] or 1) % 4 != 1:
        with pytest.raises(ValueError, match=r"4 \* k \+ 1 frames"):
            made(case)
        return

    tensors = made(case)

    if "error" in case:
        assert (case["error"], case["frame_count"], case["control"]) == ("TypeError", None, True)
        assert tensors["latents_control"].shape == (16, 1, 2, 4)
        return
    expected = {content_name(key): (key, shape, dtype) for key, (dtype, shape) in case["tensors"].items()}
    assert tensors.keys() == expected.keys()
    for name, (key, shape, dtype) in expected.items():
        assert list(tensors[name].shape) == shape
        assert tensors[name].dtype == getattr(torch, dtype)
        if name != "clip":  # a quirk: its key names the type of the latents, not its own
            assert tensor_key(name, tensors[name]) == key
    if case["i2v"]:
        condition = tensors["latents_image"][:, :, 0, 0].float().T
        assert condition[:, :4].tolist() == case["image_mask_per_frame"]
        assert ((condition[:, 4] + 1) * 127.5).round().tolist() == case["image_value_per_frame"]
    assert metadata(item(case), architecture="wan") == case["metadata"]


def item(case: dict[str, Any]) -> Item:
    frames = case["frame_count"]
    return Item(
        name="a",
        media="a",
        path=Path("a"),
        kind="video" if frames else "image",
        captions=("",),
        size=SIZE,
        bucket=SIZE,
        window=Window(0, frames or 1),
    )
