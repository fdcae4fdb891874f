"""Small pictures of training items: all of the picture, with what the crop cuts away faded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from musubi.core.errors import DataError
from musubi.data.buckets import fit
from musubi.data.media.loading import load_pixels
from musubi.data.media.resize import Pixels
from musubi.data.sample import Item

_FADED, _HAZE = 0.25, 128
"""How much is left of what is cut away, and the grey that the rest of it turns to."""

_EDGE = (235, 60, 40)
"""The colour of the line around what is kept: a grey picture's faded part alone would be hard to tell."""


def thumbnail(item: Item, *, side: int) -> Pixels | None:
    """Return an item's picture, or its clip's first frame, with sides of at most ``side``; None if it is unreadable.

    It is uint8 of shape (height, width, 3) and shows the whole file; what is trained is clear and framed, the
    rest is faded.
    """
    scale = min(1.0, side / max(item.size))
    width, height = (max(1, round(length * scale)) for length in item.size)
    try:
        pixels = load_pixels(item.path, frames=item.frames[:1], bucket=(width, height))[0].numpy()
    except DataError:
        return None
    left, top, right, bottom = _kept(item, width, height)
    faded = np.asarray(pixels * _FADED + _HAZE * (1 - _FADED), np.uint8)
    faded[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = _EDGE
    faded[top:bottom, left:right] = pixels[top:bottom, left:right]
    return faded


def spread(items: Sequence[Item], most: int) -> tuple[Item, ...]:
    """Return some items of every bucket, the largest bucket's first; evenly from the bucket's first to its last.

    Buckets take turns, so that a rare one is not left out for the sake of a common one. Of a clip's windows in one
    bucket one counts.
    """
    buckets: dict[str, dict[str, Item]] = {}
    for item in items:
        buckets.setdefault(item.bucket_label, {}).setdefault(item.media, item)
    held = sorted((list(files.values()) for files in buckets.values()), key=len, reverse=True)
    shares = _shares([len(files) for files in held], most)
    return tuple(item for files, share in zip(held, shares, strict=True) for item in _evenly(files, share))


def _shares(counts: Sequence[int], most: int) -> list[int]:
    """Deal out places one by one, to the first first, until they or what is to be shown are used up."""
    shares = [0] * len(counts)
    left = min(most, sum(counts))
    while left > 0:
        for index, count in enumerate(counts):
            if left and shares[index] < count:
                shares[index] += 1
                left -= 1
    return shares


def _evenly(files: Sequence[Item], number: int) -> Iterator[Item]:
    yield from (files[index * len(files) // number] for index in range(number))


def _kept(item: Item, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what is trained, in a picture of this size."""
    plan = fit(item.size, item.bucket)
    across, down = width / plan.resized[0], height / plan.resized[1]
    left, top = round(plan.left * across), round(plan.top * down)
    right, bottom = round((plan.left + item.bucket[0]) * across), round((plan.top + item.bucket[1]) * down)
    return left, top, right, bottom
