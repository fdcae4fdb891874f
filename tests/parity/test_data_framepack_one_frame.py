"""One-frame items of FramePack, laid out as the reference caches them; a missing target fails there and here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from musubi.architectures.framepack.one_frame import OneFrame, faded, one_frame_section
from musubi.cache.format import content_name, metadata, tensor_key
from musubi.core.errors import ConfigError
from musubi.data.sample import Item
from tests.parity.cases import vector_cases


def layout(case: dict[str, Any]) -> OneFrame:
    """Return a case's layout; no list of control positions means the usual one, as the reference takes it."""
    return OneFrame(
        target=case["target_index"],
        controls=tuple(case["clean_indices"] or [0]),
        window=case["latent_window_size"],
        post=not case["no_post"],
        history_2x=not case["no_2x"],
        history_4x=not case["no_4x"],
    )


def picture(value: float) -> Tensor:
    return torch.full((16, 1, 2, 2), value)


def name(case: dict[str, Any]) -> str:
    options = ("no_post", "no_2x", "no_4x", "alpha_on_first_control")
    chosen = [option for option in options if case[option]]
    return "-".join([f"{case['clean_indices']}", f"{case['target_index']}", f"{case['latent_window_size']}", *chosen])


@pytest.mark.parametrize("case", vector_cases("data_framepack_one_frame"), ids=name)
def test_data_framepack_one_frame(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(ConfigError):
            layout(case)
        return
    controls = [picture(10.0 * (n + 1)) for n in range(len(layout(case).controls))]
    if case["alpha_on_first_control"]:
        controls[0] = faded(controls[0], np.full((16, 16), 128, dtype=np.uint8))

    section = one_frame_section(layout(case), picture(200.0), controls)

    names = {content_name(key) for key in case["keys"]} - {"image_embeddings"}  # SigLIP's, no part of the layout
    assert section.tensors.keys() == names
    assert tensor_key("latents", section.latents.half()) in case["keys"]
    assert section.latent_indices.tolist() == case["target_idx"]
    assert section.clean_latent_indices.tolist() == case["clean_idx"]
    assert section.latents_clean[0, :, 0, 0].tolist() == pytest.approx(case["clean_values"], abs=0.005)
    for found, expected in (
        (section.clean_latent_2x_indices, case["clean2x_idx"]),
        (section.clean_latent_4x_indices, case["clean4x_idx"]),
    ):
        assert (None if found is None else found.tolist()) == expected
    assert metadata(item(case["metadata"]), architecture="framepack") == case["metadata"]


def item(facts: dict[str, str]) -> Item:
    """Return an item of the picture's own size that the metadata tells."""
    size = (int(facts["width"]), int(facts["height"]))
    return Item(name="a", media="a", path=Path("a"), kind="image", captions=("",), size=size, bucket=(16, 16))
