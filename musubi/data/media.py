"""Looking into media files and decoding them: stills through Pillow, of clips the wanted frames through PyAV."""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageOps

from musubi.architecture import Size
from musubi.batch import Sample
from musubi.core.errors import DataError, Issue, shown
from musubi.data.resize import Pixels, to_bucket
from musubi.data.sample import Item, Kind, Probe, Window, kind_of

if TYPE_CHECKING:
    from torch import Tensor

_UNREADABLE = (
    FFmpegError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
)
"""What Pillow and FFmpeg raise on damaged files."""


def probe(path: Path, *, horizon: int | None = None) -> Probe:
    """Return size, frames and rate of a picture or clip.

    A clip's first frame is decoded, to be sure that it can be. Where a container does not say how many frames it has,
    they are counted, without decoding, up to ``horizon``.

    Raises:
        DataError: The file cannot be read.
    """
    with _readable(path):
        return _probe_image(path) if _kind(path) == "image" else _probe_video(path, horizon)


def load_sample(item: Item, *, pixels: bool = True, controls: bool = True) -> Sample:
    """Decode an item: uint8 pixels of shape (frames, height, width, 3) in its bucket, conditioning files likewise.

    Raises:
        DataError: A file cannot be read, or ends before the window does.
    """
    loaded: Mapping[str, tuple[Tensor, ...]] = {}
    if controls:
        loaded = {
            role: tuple(load_pixels(p, window=item.window, bucket=item.bucket) for p in paths)
            for role, paths in item.controls.items()
        }
    return Sample(
        name=item.name,
        caption=item.caption,
        pixels=load_pixels(item.path, window=item.window, bucket=item.bucket) if pixels else None,
        controls=loaded,
    )


def load_pixels(path: Path, *, window: Window, bucket: Size) -> Tensor:
    """Return uint8 pixels of shape (frames, height, width, 3); each frame is resized as soon as it is decoded.

    Raises:
        DataError: The file cannot be read, or ends before the window does.
    """
    import torch

    if _kind(path) == "image":
        with _readable(path):
            return torch.from_numpy(np.array(to_bucket(read_image(path), bucket)))[None]
    result = torch.empty((window.count, bucket[1], bucket[0], 3), dtype=torch.uint8)
    target, done = result.numpy(), 0
    with _readable(path):
        for frame in read_frames(path, window):
            target[done] = to_bucket(frame, bucket)
            done += 1
    if done < window.count:
        found = f"{window.start + done} of {window.start + window.count} frames could be read"
        raise DataError("cannot read", [Issue(shown(path), "is truncated", f"{found}; copy or export it again")])
    return result


def read_image(path: Path) -> Pixels:
    """Return a picture as RGB, turned as its EXIF orientation says, alpha dropped, 16 bits scaled down to 8."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16") or upright.mode in {"I", "F"}:
            return _eight_bits(np.asarray(upright))
        return np.asarray(upright.convert("RGB"))


def read_frames(path: Path, window: Window) -> Iterator[Pixels]:
    """Yield the frames of a window as RGB, turned as the file's rotation says, and stop decoding after the last."""
    with av.open(path) as container:
        for frame in islice(_decoded(container, path), window.start, window.start + window.count):
            yield _upright(frame)


def _decoded(container: Any, path: Path) -> Iterator[VideoFrame]:
    """Yield the frames of the first video stream; a damaged one is an error, not a grey picture."""
    for number, frame in enumerate(container.decode(_stream(container, path))):
        if frame.is_corrupt:
            hint = f"frame {number} cannot be decoded; copy or export it again"
            raise DataError("cannot read", [Issue(shown(path), "is damaged", hint)])
        yield frame


def _stream(container: Any, path: Path) -> VideoStream:
    if not container.streams.video:
        raise DataError("cannot read", [Issue(shown(path), "has no video stream", "remove it or give another file")])
    stream: VideoStream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def _upright(frame: VideoFrame) -> Pixels:
    pixels = frame.to_ndarray(format="rgb24")
    turned = np.rot90(pixels, k=round(frame.rotation / 90)) if frame.rotation else pixels
    return np.asarray(turned, np.uint8)


def _probe_image(path: Path) -> Probe:
    with Image.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) in {5, 6, 7, 8}
    return Probe(kind="image", size=(height, width) if turned else (width, height))


def _probe_video(path: Path, horizon: int | None) -> Probe:
    with av.open(path) as container:
        stream = _stream(container, path)
        first = next(_decoded(container, path), None)
        if first is None:
            raise DataError("cannot read", [Issue(shown(path), "has no frame", "remove it or give another file")])
        height, width = _upright(first).shape[:2]
        rate = float(stream.average_rate or 0)
        frames = stream.frames
    return Probe(kind="video", size=(width, height), frames=frames or _count(path, horizon), fps=rate)


def _count(path: Path, horizon: int | None) -> int:
    """Count the packets that hold frames."""
    with av.open(path) as container:
        packets = (packet for packet in container.demux(_stream(container, path)) if packet.size)
        return sum(1 for _ in islice(packets, horizon))


def _eight_bits(values: Any) -> Pixels:
    """Return grey RGB of a picture of 16 bits, which keep their upper byte, or of floats from 0 to 1."""
    scaled = values * 255.0 if values.dtype.kind == "f" else values / 257.0
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _kind(path: Path) -> Kind:
    kind = kind_of(path)
    if kind is None:
        hint = "convert it to PNG or MP4"
        raise DataError("cannot read", [Issue(shown(path), "this format is not read", hint)])
    return kind


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """Turn whatever a damaged file provokes into a ``DataError`` that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError("cannot read", [Issue(shown(path), "no such file", "check the path")]) from error
    except PermissionError as error:
        raise DataError("cannot read", [Issue(shown(path), "may not be read", "check its permissions")]) from error
    except (*_UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        hint = f"open it in a viewer; replace or remove it ({type(error).__name__})"
        raise DataError("cannot read", [Issue(shown(path), "is damaged or not what its name says", hint)]) from error
