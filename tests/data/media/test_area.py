from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from musubi.architecture import Size
from musubi.data.media.area import area
from tests.data.files import pixels

SIDES = st.integers(1, 24).flatmap(lambda source: st.tuples(st.just(source), st.integers(1, source)))


@settings(deadline=None, max_examples=50)
@given(across=SIDES, down=SIDES, channels=st.sampled_from([1, 3, 4]), steps=st.sampled_from([1, 51, 255]))
def test_every_value_is_opencvs_to_the_bit(
    across: tuple[int, int], down: tuple[int, int], channels: int, steps: int
) -> None:
    random = np.random.default_rng(across[0] * down[0])
    source = (random.integers(0, 255 // steps + 1, (down[0], across[0], channels)) * steps).astype(np.uint8)
    size = (across[1], down[1])

    assert np.array_equal(area(source, size), _as_opencv(source, size))


@settings(deadline=None, max_examples=50)
@given(width=st.integers(1, 40), height=st.integers(1, 40), shrink=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)))
def test_shrinking_is_the_average_of_what_each_pixel_covers(
    width: int, height: int, shrink: tuple[float, float]
) -> None:
    size = max(1, int(width * shrink[0])), max(1, int(height * shrink[1]))
    source = pixels(width, height, seed=3)

    result = area(source, size)

    exact = np.einsum("xw,yh,hwc->yxc", _shares(width, size[0]), _shares(height, size[1]), source.astype(np.float64))
    assert np.abs(result - exact).max() <= 0.5 + 1e-2


@settings(deadline=None, max_examples=50)
@given(data=st.data(), size=st.tuples(st.integers(1, 30), st.integers(1, 40)))
def test_a_part_is_what_cutting_the_whole_gives(data: st.DataObject, size: Size) -> None:
    source = pixels(40, 50)
    left, top = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    kept = data.draw(st.integers(1, size[0] - left)), data.draw(st.integers(1, size[1] - top))

    part = area(source, size, left=left, top=top, kept=kept)

    assert np.array_equal(part, area(source, size)[top : top + kept[1], left : left + kept[0]])


def test_how_much_is_summed_at_a_time_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.random.default_rng(0).integers(0, 256, (97, 89, 3), dtype=np.uint8)
    at_once = area(source, (41, 47))

    monkeypatch.setattr("musubi.data.media.area._BLOCK", 1)

    assert np.array_equal(area(source, (41, 47)), at_once)


@pytest.mark.parametrize(("side", "expected"), [(2, 1), (4, 0), (6, 0)])
def test_halves_of_two_by_two_blocks_are_rounded_up_and_other_halves_to_even(side: int, expected: int) -> None:
    checks = (np.indices((side, side)).sum(axis=0) % 2).astype(np.uint8)

    assert area(checks, (1, 1)).item() == expected


def test_one_channel_may_come_without_its_axis_and_rows_from_anywhere() -> None:
    source = pixels(30, 20)

    assert np.array_equal(area(source[:, :, 1], (7, 5)), area(source, (7, 5))[:, :, 1])
    assert np.array_equal(area(source[::-1, ::2], (7, 5)), area(source[::-1, ::2].copy(), (7, 5)))


@settings(deadline=None, max_examples=50)
@given(value=st.integers(0, 255), size=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_a_plain_colour_stays_what_it_is(value: int, size: Size) -> None:
    assert (area(np.full((30, 30, 3), value, np.uint8), size) == value).all()


def _as_opencv(source: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Return OpenCV's INTER_AREA, number by number in its order of float32 operations (resize.cpp)."""
    height, width, channels = source.shape
    if (width, height) == size:
        return source
    if width % size[0] == 0 and height % size[1] == 0:
        return _blocks(source, width // size[0], height // size[1])
    result = np.zeros((size[1], size[0], channels), np.uint8)
    across = [_cell(width, size[0], x) for x in range(size[0])]
    for y in range(size[1]):
        rows = [(weight, [_sum(source[row], cells) for cells in across]) for row, weight in _cell(height, size[1], y)]
        for x in range(size[0]):
            total = np.zeros(channels, np.float32)
            for weight, sums in rows:
                total = total + weight * sums[x]
            result[y, x] = np.rint(total)
    return result


def _sum(line: NDArray[np.uint8], cells: list[tuple[int, np.float32]]) -> NDArray[np.float32]:
    total = np.zeros(line.shape[-1], np.float32)
    for place, weight in cells:
        total = total + line[place].astype(np.float32) * weight
    return total


def _cell(source: int, target: int, number: int) -> list[tuple[int, np.float32]]:
    scale = 1 / (target / source)
    start, stop = number * scale, number * scale + scale
    width = min(scale, source - start)
    last = min(math.floor(stop), source - 1)
    first = min(math.ceil(start), last)
    found = [(first - 1, (first - start) / width)] if first - start > 1e-3 else []
    found += [(place, 1 / width) for place in range(first, last)]
    if stop - last > 1e-3:
        found.append((last, min(stop - last, 1.0, width) / width))
    return [(place, np.float32(weight)) for place, weight in found]


def _blocks(source: NDArray[np.uint8], across: int, down: int) -> NDArray[np.uint8]:
    height, width, channels = source.shape
    sums = source.reshape(height // down, down, width // across, across, channels).sum(axis=(1, 3), dtype=np.int64)
    if across == down == 2:
        return np.asarray((sums + 2) >> 2, np.uint8)
    return np.asarray(np.rint(sums.astype(np.float32) * np.float32(1 / (across * down))), np.uint8)


def _shares(source: int, target: int) -> NDArray[np.float64]:
    """Return which share of each target cell each source cell fills."""
    edges = np.linspace(0, source, target + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, source + 1)) - np.maximum(edges[:-1, None], np.arange(source))
    return np.asarray(np.clip(overlap, 0, None) * target / source, np.float64)
