"""Exact area averages, equal to OpenCV's INTER_AREA to the bit and about as fast.

The sums are made in the order that suits the memory: rows before columns, a cache of values at a time. Float32 sums in
another order differ in their last bits, which matters only where a sum lies so close to a half that it might be rounded
the other way. These few are summed again in OpenCV's own order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from musubi.architecture import Size
from musubi.data.media.area_sums import Across, Bytes, Down
from musubi.data.media.coverage import Coverage, Floats, Indices, coverage, whole

_BLOCK = 100_000
"""How many values are summed at a time: what they need stays in the cache of one core, and is small."""

_NOWHERE: Indices = np.empty(0, np.intp)

_Round = Callable[[Floats, Bytes], Indices]
"""Round sums into a result, and return the flat indices of those that may be wrong."""

_Places = tuple[Indices, Indices]
"""Rows, and columns of interleaved channels."""


def area(pixels: Bytes, size: Size, *, left: int = 0, top: int = 0, kept: Size | None = None) -> Bytes:
    """Return the pixels at a smaller size, each the average of the area it covers, rounded as OpenCV rounds.

    Only what is kept is computed.

    Args:
        pixels: Shape (height, width) or (height, width, channels).
        size: The (width, height) to shrink to.
        left: The first column to keep of the shrunk picture.
        top: The first row to keep.
        kept: The (width, height) to keep; None is all.

    Source: OpenCV ``resize.cpp``, ``resizeArea_`` and, for whole blocks, ``resizeAreaFast_``.
    """
    height, width = pixels.shape[:2]
    wide, high = kept or size
    if (width, height) == size:
        return pixels[top : top + high, left : left + wide]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    lines = np.ascontiguousarray(pixels).reshape(height, width * channels)
    rows = coverage(height, size[1]).part(top, top + high)
    columns = coverage(width, size[0]).part(left, left + wide)
    blocks = (round(width / size[0]), round(height / size[1]))
    in_blocks = whole(width, size[0]) and whole(height, size[1])
    if in_blocks and blocks == (2, 2):
        shrunk, _ = _shrunk(lines, rows, columns, channels, _halves_up)
    else:
        shrunk, places = _shrunk(lines, rows, columns, channels, _rounding(rows, columns))
        row, column = np.divmod(places, shrunk.shape[1])
        if in_blocks:
            again = _block_averages(lines, (row + top, column + left * channels), channels, blocks)
        else:
            again = _averages(lines, rows, columns, (row, column), channels)
        shrunk.reshape(-1)[places] = np.rint(again)
    return shrunk.reshape(high, wide, *pixels.shape[2:])


def _shrunk(lines: Bytes, rows: Coverage, columns: Coverage, channels: int, rounded: _Round) -> tuple[Bytes, Indices]:
    """Return the averages, and the places where they may be rounded the wrong way."""
    width = lines.shape[1]
    most = max(1, min(len(rows), _BLOCK // width))
    down = Down(lines, rows, most=most)
    across = Across(columns, width=width // channels, channels=channels, most=most)
    result = np.empty((len(rows), len(columns) * channels), np.uint8)
    doubts: list[Indices] = []
    for start in range(0, len(result), most):
        stop = min(start + most, len(result))
        places = rounded(across.sum(down.sum(start, stop)), result[start:stop])
        doubts.append(places + start * result.shape[1])
    return result, np.concatenate(doubts)


def _halves_up(sums: Floats, result: Bytes) -> Indices:
    """Round averages of 2 x 2 blocks, which float32 holds exactly, as OpenCV does for these alone."""
    sums += np.float32(0.5)
    result[:] = sums
    return _NOWHERE


def _rounding(rows: Coverage, columns: Coverage) -> _Round:
    """Return what rounds sums to the nearest whole number, halves to even, and says where it may be wrong.

    Each float32 product and sum is off by at most 255 * 2 ** -24. OpenCV adds up a line term by term, then lines;
    here whole lines are added as integers and neighbours one by one. A few more operations weigh the edges.
    """
    operations = 2 * columns.longest + 2 * rows.longest + 20
    margin = np.float32(0.5 - 256 * operations * 2.0**-24)
    exact = rows.exact and columns.exact

    def rounded(sums: Floats, result: Bytes) -> Indices:
        nearest = np.rint(sums)
        result[:] = nearest
        if exact:
            return _NOWHERE
        sums -= nearest
        np.abs(sums, out=sums)
        return np.flatnonzero(sums > margin)

    return rounded


def _averages(lines: Bytes, rows: Coverage, columns: Coverage, places: _Places, channels: int) -> Floats:
    """Return single averages, summed term by term in OpenCV's order: along each line first, then over the lines."""
    row = places[0]
    column, channel = np.divmod(places[1], channels)
    across = [(source * channels + channel, weight) for source, weight in columns.terms(column)]
    total = np.zeros(len(row), np.float32)
    for source, weight in rows.terms(row):
        line = np.zeros(len(row), np.float32)
        for place, share in across:
            line += lines[source, place] * share
        total += line * weight
    return total


def _block_averages(lines: Bytes, places: _Places, channels: int, blocks: Size) -> Floats:
    """Return single averages of whole blocks from the sums of their bytes."""
    across, down = blocks
    row = places[0]
    column, channel = np.divmod(places[1], channels)
    inside = (column[:, None] * across + np.arange(across)) * channels + channel[:, None]
    total = np.zeros(len(row), np.int64)
    for number in range(down):
        total += lines[row[:, None] * down + number, inside].sum(axis=1, dtype=np.int64)
    return total.astype(np.float32) * np.float32(1 / (across * down))
