"""Pixels to their bucket: Pillow's Lanczos to enlarge, exact area averages (OpenCV's INTER_AREA) to shrink."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from musubi.architecture import Size
from musubi.data.buckets import fit

Pixels = NDArray[np.uint8]
"""Shape (height, width, channels)."""

_EPSILON = float(np.finfo(np.float64).eps)


def to_bucket(pixels: Pixels, bucket: Size) -> Pixels:
    """Return the pixels resized to cover ``bucket`` (width, height) and cropped around the centre."""
    height, width = pixels.shape[:2]
    plan = fit((width, height), bucket)
    if plan.method == "none":
        return pixels
    resized = lanczos(pixels, plan.resized) if plan.method == "lanczos" else area(pixels, plan.resized)
    return resized[plan.top : plan.top + bucket[1], plan.left : plan.left + bucket[0]]


def lanczos(pixels: Pixels, size: Size) -> Pixels:
    """Return the pixels at another size by Pillow's Lanczos filter."""
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def area(pixels: Pixels, size: Size) -> Pixels:
    """Return the pixels at a smaller size, each the average of the area it covers, rounded as OpenCV rounds.

    Source: OpenCV ``resize.cpp``, ``resizeArea_`` and ``resizeAreaFast_``; float32 sums, columns before rows.
    """
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    scale_x, scale_y = 1 / (size[0] / width), 1 / (size[1] / height)
    if _whole(scale_x) and _whole(scale_y):
        return _blocks(pixels, round(scale_x), round(scale_y), size)
    columns = _shrink(np.ascontiguousarray(pixels.transpose(1, 0, 2), np.float32), size[0], scale_x)
    rows = _shrink(np.ascontiguousarray(columns.transpose(1, 0, 2)), size[1], scale_y)
    return _rounded(rows)


def _blocks(pixels: Pixels, across: int, down: int, size: Size) -> Pixels:
    """Average whole blocks; OpenCV rounds halves up for 2 x 2 blocks and to even for all others."""
    width, height = size
    blocks = pixels[: height * down, : width * across].reshape(height, down, width, across, -1)
    sums = blocks.sum(axis=(1, 3), dtype=np.int64)
    if across == down == 2:
        return np.asarray((sums + 2) >> 2, np.uint8)
    return _rounded(sums.astype(np.float32) * np.float32(1 / (across * down)))


def _shrink(values: NDArray[np.float32], length: int, scale: float) -> NDArray[np.float32]:
    """Average along the first axis: a few weighted selections of slices are summed, in OpenCV's order."""
    indices, weights = _taps(values.shape[0], length, scale)
    result = np.zeros((length, *values.shape[1:]), np.float32)
    part = np.empty_like(result)
    for index, weight in zip(indices.T, weights.T, strict=True):
        np.take(values, index, axis=0, out=part, mode="clip")
        part *= weight[:, None, None]
        result += part
    return result


def _taps(source: int, length: int, scale: float) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return which source cells each target cell covers and how much of it they fill; unused places weigh 0."""
    taps = math.ceil(scale) + 2
    indices, weights = np.zeros((length, taps), np.intp), np.zeros((length, taps), np.float32)
    for target in range(length):
        start, stop = target * scale, target * scale + scale
        cell = min(scale, source - start)
        last = min(math.floor(stop), source - 1)
        first = min(math.ceil(start), last)
        covered: list[tuple[int, float]] = []
        if first - start > 1e-3:
            covered.append((first - 1, (first - start) / cell))
        covered += [(i, 1 / cell) for i in range(first, last)]
        if stop - last > 1e-3:
            covered.append((last, min(stop - last, 1.0, cell) / cell))
        for place, (index, weight) in enumerate(covered):
            indices[target, place], weights[target, place] = index, weight
    used = weights.any(axis=0)
    return indices[:, used], weights[:, used]


def _whole(scale: float) -> bool:
    return abs(scale - round(scale)) < _EPSILON


def _rounded(values: NDArray[np.float32]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
