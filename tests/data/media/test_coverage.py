from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from musubi.data.media.coverage import Coverage, coverage, whole

AXES = st.integers(1, 300).flatmap(lambda source: st.tuples(st.just(source), st.integers(1, source)))


@given(axes=AXES)
def test_the_weights_are_the_shares_of_what_each_cell_covers(axes: tuple[int, int]) -> None:
    source, target = axes

    found = _matrix(coverage(source, target), source)

    edges = np.linspace(0, source, target + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, source + 1)) - np.maximum(edges[:-1, None], np.arange(source))
    exact = np.clip(overlap, 0, None) * target / source
    assert np.abs(found - exact).max() < 1.1e-3, "what is below a thousandth of a source cell may be left out"


@given(axes=AXES, data=st.data())
def test_a_part_covers_what_its_cells_cover_in_the_whole(axes: tuple[int, int], data: st.DataObject) -> None:
    source, target = axes
    start = data.draw(st.integers(0, target - 1))
    stop = data.draw(st.integers(start + 1, target))

    part = coverage(source, target).part(start, stop)

    assert len(part) == stop - start
    assert np.array_equal(_matrix(part, source), _matrix(coverage(source, target), source)[start:stop])


@pytest.mark.parametrize(("source", "target", "expected"), [(1920, 960, True), (9, 3, True), (1920, 853, False)])
def test_only_whole_scales_are_whole(source: int, target: int, expected: bool) -> None:
    assert whole(source, target) == expected


@pytest.mark.parametrize(("source", "target", "expected"), [(1024, 960, True), (640, 480, True), (1920, 853, False)])
def test_weights_that_float32_sums_exactly_are_known(source: int, target: int, expected: bool) -> None:
    assert coverage(source, target).exact == expected


def _matrix(cover: Coverage, source: int) -> NDArray[np.float64]:
    """Return the weights as a matrix of shape (cells, source cells)."""
    cells = np.arange(len(cover))
    matrix = np.zeros((len(cover), source))
    for places, weights in cover.terms(cells):
        matrix[cells, places] += weights
    return matrix
