from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from musubi.data.resize import area, to_bucket
from tests.data.files import pixels


@settings(deadline=None, max_examples=50)
@given(width=st.integers(1, 40), height=st.integers(1, 40), shrink=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)))
def test_shrinking_by_area_is_the_average_of_what_each_pixel_covers(
    width: int, height: int, shrink: tuple[float, float]
) -> None:
    size = max(1, int(width * shrink[0])), max(1, int(height * shrink[1]))
    source = pixels(width, height, seed=3)

    result = area(source, size)

    across, down = _coverage(width, size[0]), _coverage(height, size[1])
    exact = np.einsum("xw,yh,hwc->yxc", across, down, source.astype(np.float64))
    assert np.abs(result - exact).max() <= 0.5 + 1e-2


@settings(deadline=None, max_examples=50)
@given(value=st.integers(0, 255), size=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_a_plain_colour_stays_what_it_is(value: int, size: tuple[int, int]) -> None:
    plain = np.full((20, 20, 3), value, np.uint8)

    assert (to_bucket(plain, size) == value).all()


def test_halves_of_two_by_two_blocks_are_rounded_up_and_other_halves_to_even() -> None:
    two = np.array([[0, 1], [1, 0]], np.uint8)[:, :, None]
    four = np.tile(two, (2, 2, 1))

    assert area(two, (1, 1)).item() == 1
    assert area(four, (1, 1)).item() == 0


def test_an_image_of_the_buckets_size_is_left_as_it_is() -> None:
    image = pixels(32, 16)

    assert to_bucket(image, (32, 16)) is image


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3)])
def test_extreme_shapes_reach_their_bucket(size: tuple[int, int]) -> None:
    assert to_bucket(pixels(*size), (32, 48)).shape == (48, 32, 3)


def _coverage(source: int, target: int) -> NDArray[np.float64]:
    """Return which share of each target cell each source cell fills."""
    edges = np.linspace(0, source, target + 1)
    left, right = np.arange(source), np.arange(1, source + 1)
    overlap = np.minimum(edges[1:, None], right) - np.maximum(edges[:-1, None], left)
    return np.asarray(np.clip(overlap, 0, None) * target / source, np.float64)
