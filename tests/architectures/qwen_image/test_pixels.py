from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from musubi.architectures.qwen_image.pixels import Patching, at_area, patches_of, rounded
from musubi.core.errors import DataError

STEP = Patching().step


@given(width=st.integers(1, 9000), height=st.integers(1, 9000))
def test_sizes_are_whole_tokens_within_the_published_bounds(width: int, height: int) -> None:
    assume(max(width, height) <= 200 * min(width, height))

    size = rounded((width, height), STEP)

    assert all(side > 0 and side % STEP == 0 for side in size)
    assert 56 * 56 <= size[0] * size[1] <= 28 * 28 * 16384


def test_a_thread_is_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"control: is too narrow a picture: 10x2001.*crop it"):
        rounded((10, 2001), STEP)


def test_a_picture_is_shown_twice_token_by_token() -> None:
    picture = torch.zeros(56, 84, 3, dtype=torch.uint8)
    picture[:, 28:56] = 255

    patches = patches_of(picture, Patching())

    assert (patches.rows, patches.columns, patches.tokens(2)) == (4, 6, 6)
    values = patches.values.reshape(24, 3, 2, 14, 14)
    assert torch.equal(values[:, :, 0], values[:, :, 1])
    bright = (values[:, :, 0].mean((1, 2, 3)) > 0).reshape(6, 4)
    assert bright.all(1).tolist() == [False, True, False, False, True, False], "the four patches of a token together"
    assert bright.any(1).tolist() == bright.all(1).tolist()


def test_at_an_area_the_shape_stays() -> None:
    found = at_area(torch.zeros(480, 832, 3, dtype=torch.uint8), 384 * 384)

    assert found.shape == (288, 512, 3)
    assert found.dtype == torch.uint8
