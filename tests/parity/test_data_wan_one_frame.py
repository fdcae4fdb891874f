"""One-frame items of Wan, laid out as the reference caches them.

Where the control positions are not in ascending order, the reference gives the pictures to the wrong ones (spec 5.5, a
quirk); of these cases all but the pictures' places is compared. What it fails on, what it makes without a list of
control positions, and a target in the place of a control picture are refused here.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.architectures.wan.encoding import encode_samples
from musubi.architectures.wan.one_frame import OneFrame
from musubi.architectures.wan.sight import Sight
from musubi.batch import Sample
from musubi.cache.format import content_name, tensor_key
from musubi.core.errors import ConfigError
from tests.parity.cases import vector_cases

TARGET = 200


def encode(video_BCFHW: Tensor) -> Tensor:
    """Stand in for the VAE as the reference's stub does: latents have the pixels' value."""
    assert video_BCFHW.shape[2] == 1
    return video_BCFHW[:, :1, :, ::8, ::8].expand(-1, 16, -1, -1, -1).bfloat16()


def picture(value: int) -> Tensor:
    return torch.full((1, 16, 16, 3), value, dtype=torch.uint8)


def values(latents_CFHW: Tensor) -> list[float]:
    return [float(value) for value in ((latents_CFHW[-1, :, 0, 0].float() + 1) * 127.5).round()]


def name(case: dict[str, Any]) -> str:
    return f"{case['clean_indices']}-{case['target_index']}"


@pytest.mark.parametrize(
    "case", vector_cases("data_wan_one_frame"), ids=lambda case: f"{case['clean_indices']}-{case['target_index']}"
)
def test_data_wan_one_frame(case: dict[str, Any]) -> None:
    controls = tuple(case["clean_indices"] or ())
    if "error" in case or not controls or case["target_index"] in controls:
        with pytest.raises(ConfigError):
            OneFrame(target=case["target_index"], controls=controls)
        return
    layout = OneFrame(target=case["target_index"], controls=controls)

    shown = tuple(picture(10 * (n + 1)) for n in range(len(controls)))
    item = Sample(name="a", pixels=picture(TARGET), controls={"control": shown})

    (tensors,) = encode_samples(encode, Sight(image=True, one_frame=layout), [item])

    assert tensors.keys() == {"latents", "latents_image", "f_indices"}
    for content, tensor in tensors.items():
        (key,) = (key for key in case["tensors"] if content_name(key) == content)
        dtype, shape = case["tensors"][key]
        assert tensor_key(content, tensor) == key
        assert [tensor.dtype, list(tensor.shape)] == [getattr(torch, dtype), shape]
    assert tensors["f_indices"].tolist() == case["f_indices"]
    assert tensors["latents_image"][:4, :, 0, 0].unique(dim=0).tolist() == [case["image_mask"]]
    in_order = list(controls) == sorted(controls)
    for content, expected in ("latents", case["latents_values"]), ("latents_image", case["image_values"]):
        found = values(tensors[content])
        assert sorted(found) == pytest.approx(sorted(expected), abs=1)  # bfloat16
        assert found == pytest.approx(expected, abs=1) or not in_order
