"""Aspect buckets: which size an image is trained at, and how it gets there. The reference's rules to the pixel."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import attrs

from musubi.architecture import Size

Method = Literal["none", "area", "lanczos"]


@cache
def table(resolution: Size, step: int) -> tuple[Size, ...]:
    """Return all (width, height) of about the area of ``resolution`` whose sides are multiples of ``step``, sorted.

    Aspect ratios reach from about 1/4 to 4 and no area exceeds that of ``resolution``.

    Raises:
        ValueError: The area is too small for the step.

    Example:
        >>> from musubi.data.buckets import table
        >>> table((64, 64), 32)
        ((32, 128), (64, 64), (128, 32))
    """
    area = resolution[0] * resolution[1]
    root = math.isqrt(area)
    if root < 2 * step:
        raise ValueError(f"resolution {resolution[0]}x{resolution[1]} is too small for sides of {step} * k")
    sizes: set[Size] = set()
    for width in range(_floor(root // 2, step), root + step, step):
        height = _floor(area // width, step)
        sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


@attrs.frozen(kw_only=True)
class Buckets:
    """Choose the bucket of each size: the nearest aspect ratio in the table.

    Not ``enabled``: everything is cropped to ``resolution`` itself. ``no_upscale``: what is smaller than the resolution
    keeps its size, trimmed to multiples of ``step``.
    """

    resolution: Size
    step: int = 16
    enabled: bool = True
    no_upscale: bool = False

    def choose(self, size: Size) -> Size:
        """Return the bucket of an image of a size; a side is 0 where the image is smaller than a step."""
        if not self.enabled:
            return self.resolution
        width, height = size
        if self.no_upscale and width * height <= self.resolution[0] * self.resolution[1]:
            return _floor(width, self.step), _floor(height, self.step)
        aspect = width / height
        return min(table(self.resolution, self.step), key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))


@attrs.frozen(kw_only=True)
class Fit:
    """How an image reaches its bucket: resized by ``method`` to ``resized``, then cropped from (``left``, ``top``)."""

    method: Method
    resized: Size
    left: int
    top: int


def fit(size: Size, bucket: Size) -> Fit:
    """Plan the resize that covers the bucket and the centre crop; enlarging by Lanczos, shrinking by area."""
    if size == bucket:
        return Fit(method="none", resized=size, left=0, top=0)
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    width, height = int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)
    return Fit(
        method="lanczos" if scale > 1 else "area",
        resized=(width, height),
        left=(width - bucket[0]) // 2,
        top=(height - bucket[1]) // 2,
    )


def _floor(side: int, step: int) -> int:
    return side - side % step
