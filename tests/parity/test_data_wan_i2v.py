"""The conditions of Wan's image and control models, laid out as the reference caches them.

The reference fails on a picture with a control picture (a TypeError); here the control is encoded like any other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.architectures.wan.encoding import describe_samples, encode_samples
from musubi.architectures.wan.sight import Sight
from musubi.batch import Sample
from musubi.cache.format import content_name, metadata, tensor_key
from musubi.data.sample import Item, Window
from tests.parity.cases import vector_cases

SIZE, FIRST = (32, 16), 50


def encode(video_BCFHW: Tensor) -> Tensor:
    """Stand in for the VAE as the reference's stub does: every latent frame holds its first frame's value."""
    frames = torch.cat([video_BCFHW[:, :1, :1], video_BCFHW[:, :1, 1::4]], dim=2)
    return frames[..., ::8, ::8].expand(-1, 16, -1, -1, -1).bfloat16()


def describe(images_BCHW: Tensor) -> Tensor:
    """Stand in for CLIP, which runs in float16."""
    return torch.zeros(len(images_BCHW), 257, 1280, dtype=torch.float16)


def sample(case: dict[str, Any]) -> Sample:
    """Return an item whose frames have the values 50, 51, 52, ..., and which follows itself."""
    values = FIRST + torch.arange(case["frame_count"] or 1)
    pixels = values.clamp(max=255).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, SIZE[1], SIZE[0], 3)
    return Sample(name="a", pixels=pixels, controls={"control": (pixels,)})


def made(case: dict[str, Any]) -> dict[str, Tensor]:
    """Return what is cached of a case's item."""
    sight = Sight(image=case["i2v"], control=case["control"])
    tensors = dict(encode_samples(encode, sight, [sample(case)])[0])
    return tensors | (describe_samples(describe, sight, [sample(case)])[0] if case["clip"] else {})


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
