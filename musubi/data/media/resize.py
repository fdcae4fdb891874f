"""Pixels to their bucket: Pillow's Lanczos to enlarge, exact area averages (OpenCV's INTER_AREA) to shrink."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from musubi.architecture import Size
from musubi.data.buckets import Fit, fit
from musubi.data.media.area import area

Pixels = NDArray[np.uint8]
"""Shape (height, width, channels), or (height, width) of one channel."""

_SURPLUS = 16
"""How many times its bucket's area a picture is enlarged to before it is cropped. Beyond, the kept part alone is
computed, which Pillow does a little less exactly: values may differ by 1."""


def to_bucket(pixels: Pixels, bucket: Size) -> Pixels:
    """Return the pixels resized to cover ``bucket`` (width, height) and cropped around the centre.

    The result may share the memory of ``pixels``.
    """
    height, width = pixels.shape[:2]
    plan = fit((width, height), bucket)
    if plan.method == "none":
        return pixels
    if plan.method == "area":
        return area(pixels, plan.resized, left=plan.left, top=plan.top, kept=bucket)
    return _enlarged(pixels, plan, bucket)


def _enlarged(pixels: Pixels, plan: Fit, bucket: Size) -> Pixels:
    """Return the part that is kept of enlarged pixels; a thread of a picture, enlarged as a whole, fills the memory."""
    if math.prod(plan.resized) <= _SURPLUS * math.prod(bucket):
        return lanczos(pixels, plan.resized)[plan.top : plan.top + bucket[1], plan.left : plan.left + bucket[0]]
    height, width = pixels.shape[:2]
    left, right = _span(plan.left, bucket[0], width / plan.resized[0], most=width)
    top, bottom = _span(plan.top, bucket[1], height / plan.resized[1], most=height)
    image = Image.fromarray(pixels)
    mode = image.mode
    if mode == "RGBA":
        image = image.convert("RGBa")  # as Pillow does in each step: colours count as much as they can be seen
    # One direction after the other: for a part Pillow chooses their order, and it rounds between them.
    wide = image.resize((bucket[0], height), Image.Resampling.LANCZOS, box=(left, 0, right, height))
    return np.asarray(wide.resize(bucket, Image.Resampling.LANCZOS, box=(0, top, bucket[0], bottom)).convert(mode))


def _span(start: int, count: int, scale: float, *, most: int) -> tuple[float, float]:
    """Return where the kept part of an enlarged side begins and ends in the pixels it is made of."""
    return start * scale, min((start + count) * scale, most)


def stretched(pixels: Pixels, size: Size) -> Pixels:
    """Return all of the pixels at another (width, height): by area averages where no side grows, else by Lanczos."""
    height, width = pixels.shape[:2]
    return area(pixels, size) if size[0] <= width and size[1] <= height else lanczos(pixels, size)


def lanczos(pixels: Pixels, size: Size) -> Pixels:
    """Return the pixels at another size by Pillow's Lanczos filter."""
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
