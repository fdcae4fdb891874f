from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.architecture import Geometry
from musubi.batch import Sample
from musubi.cache.building.masks import encode_masks, reduce_mask
from musubi.cache.format import tensor_key
from musubi.core.errors import DataError

GEOMETRY = Geometry(stride=8, frame_step=4)


@settings(deadline=None, max_examples=30)
@given(latents=st.integers(1, 4), height=st.integers(1, 3), width=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_cell_is_the_mean_of_its_pixels_and_frames(latents: int, height: int, width: int, seed: int) -> None:
    frames = (latents - 1) * 4 + 1
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 256, (frames, height * 8, width * 8), generator=generator, dtype=torch.uint8)

    reduced = reduce_mask(mask, geometry=GEOMETRY, frames=frames)

    assert reduced.shape == (latents, height, width)
    assert reduced.dtype == torch.float32
    for place in [(0, 0, 0), (latents - 1, height - 1, width - 1)]:
        f, y, x = place
        group = slice(0, 1) if f == 0 else slice(4 * f - 3, 4 * f + 1)
        cell = mask[group, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8]
        assert reduced[place].item() == pytest.approx(cell.double().mean().item() / 255, abs=1e-6)


def test_black_and_white_are_exactly_0_and_1_and_a_still_counts_for_every_frame() -> None:
    mask = torch.zeros(1, 16, 32, dtype=torch.uint8)
    mask[:, :, 16:] = 255

    (entry,) = encode_masks([Sample(name="a", mask=mask)], geometry=GEOMETRY, frames=9)

    assert entry.tensors["loss_mask"].shape == (3, 2, 4)
    assert torch.equal(entry.tensors["loss_mask"][2], torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2))
    assert tensor_key("loss_mask", entry.tensors["loss_mask"]) == "loss_mask"


def test_a_sample_without_mask_is_an_error() -> None:
    with pytest.raises(DataError, match="a: has no mask"):
        encode_masks([Sample(name="a")], geometry=GEOMETRY, frames=1)
