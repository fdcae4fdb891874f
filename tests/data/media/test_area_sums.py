from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from musubi.data.media.area_sums import Across, Down
from musubi.data.media.coverage import coverage
from tests.data.files import pixels

AXES = st.integers(1, 60).flatmap(lambda source: st.tuples(st.just(source), st.integers(1, source)))


@settings(deadline=None)
@given(axes=AXES, most=st.integers(1, 60))
def test_lines_are_summed_as_they_are_covered_however_many_at_a_time(axes: tuple[int, int], most: int) -> None:
    source, target = axes
    lines = pixels(5, source).reshape(source, -1)
    down = Down(lines, coverage(source, target), most=most)

    sums = [down.sum(start, min(start + most, target)).copy() for start in range(0, target, most)]

    assert np.allclose(np.concatenate(sums), _weights(*axes) @ lines, atol=1e-3)


@settings(deadline=None)
@given(axes=AXES, channels=st.integers(1, 4))
def test_neighbours_of_the_same_channel_are_summed_as_they_are_covered(axes: tuple[int, int], channels: int) -> None:
    source, target = axes
    lines = np.random.default_rng(source).uniform(0, 255, (3, source, channels)).astype(np.float32)
    across = Across(coverage(source, target), width=source, channels=channels, most=4)

    sums = across.sum(lines.reshape(3, -1))

    expected = np.einsum("ts,rsc->rtc", _weights(*axes), lines)
    assert np.allclose(sums.reshape(expected.shape), expected, atol=1e-3)


@pytest.mark.parametrize("height", [300, 70_000])
def test_very_many_bright_lines_do_not_overflow(height: int) -> None:
    lines = np.full((height, 2), 255, np.uint8)

    assert np.allclose(Down(lines, coverage(height, 1), most=1).sum(0, 1), 255)


def _weights(source: int, target: int) -> NDArray[np.float64]:
    matrix = np.zeros((target, source))
    cells = np.arange(target)
    for places, weights in coverage(source, target).terms(cells):
        matrix[cells, places] += weights
    return matrix
