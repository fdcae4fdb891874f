"""The reference's way from media files to pixels in their buckets, written from its description (data.md 2, 3 and 7.4).

It needs OpenCV, which is not one of our dependencies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from musubi.data.buckets import Buckets, fit
from musubi.data.sample import Window

cv2: Any = import_module("cv2")

Pixels = NDArray[np.uint8]
T = TypeVar("T")

_PAUSE_S = 0.1


def picture(path: Path, buckets: Buckets) -> Pixels:
    """Return a picture in its bucket, of shape (1, height, width, 3)."""
    return resized(Image.open(path).convert("RGB"), buckets)[None]


def clip(path: Path, buckets: Buckets, windows: Sequence[Window], *, end: int | None) -> list[Pixels]:
    """Return the windows of a clip, all frames before ``end`` having been decoded."""
    frames: list[Pixels] = []
    with av.open(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if end is not None and number >= end:
                break
            image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
            frames.append(resized(image, buckets))
    everything = np.stack(frames)
    return [everything[window.start : window.start + window.count] for window in windows]


def resized(image: Image.Image, buckets: Buckets) -> Pixels:
    """Return a picture resized to cover its bucket and cropped around the centre."""
    bucket = buckets.choose(image.size)
    plan = fit(image.size, bucket)
    if plan.method == "lanczos":
        pixels = np.array(image.resize(plan.resized, Image.Resampling.LANCZOS))
    else:
        pixels = np.array(image)
        if plan.method == "area":
            pixels = np.asarray(cv2.resize(pixels, plan.resized, interpolation=cv2.INTER_AREA), np.uint8)
    return pixels[plan.top : plan.top + bucket[1], plan.left : plan.left + bucket[0]]


def polled(work: Sequence[Callable[[], T]], *, threads: int) -> Iterator[T]:
    """Yield what a pool makes, in the order in which it is found to be done by looking every tenth of a second."""
    with ThreadPoolExecutor(threads) as pool:
        running: list[Future[T]] = []
        for one in work:
            running.append(pool.submit(one))
            yield from _done(running, fewer_than=threads)
        yield from _done(running, fewer_than=1)


def _done(running: list[Future[T]], *, fewer_than: int) -> Iterator[T]:
    while len(running) >= fewer_than:
        finished = [future for future in running if future.done()]
        if not finished:
            time.sleep(_PAUSE_S)
        for future in finished:
            running.remove(future)
            yield future.result()
