"""Pictures, clips and captions of the corpus: what is on them tells them apart and shows which way up they are."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from musubi.architecture import Size
from tests.corpus.case import CORNERS, FRAMES, Corners, said
from tests.data.files import pixels

Pixels = NDArray[np.uint8]

_QUICK: Mapping[str, str] = {"preset": "ultrafast", "x265-params": "log-level=none"}
_DARKEST, _STEP = 25, 10


def quarters(size: Size = (64, 64), corners: Corners = CORNERS) -> Image.Image:
    """Return a picture of four colours, by which one sees how it was turned."""
    width, height = size
    top, bottom = (
        np.repeat(np.array([pair], np.uint8), (width + 1) // 2, axis=1) for pair in (corners[:2], corners[2:])
    )
    rows = np.repeat(np.concatenate([top, bottom]), (height + 1) // 2, axis=0)
    return Image.fromarray(np.ascontiguousarray(rows[:height, :width]))


def numbered(number: int, size: Size = (64, 64)) -> Pixels:
    """Return a frame that shows its number as a shade of grey."""
    return np.full((size[1], size[0], 3), _DARKEST + _STEP * number, np.uint8)


def number_of(frame: Pixels) -> int:
    """Return the number that a frame shows."""
    return round((float(frame.mean()) - _DARKEST) / _STEP)


def write_caption(path: Path, text: str | None = None) -> Path:
    """Write the caption of a media file beside it, by default that of its name."""
    path.with_suffix(".txt").write_text(said(path.name) if text is None else text, encoding="utf-8")
    return path


def write_bytes(path: Path, content: bytes, *, caption: str | None = None) -> Path:
    """Write a file of any content and its caption."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return write_caption(path, caption)


def write_picture(
    path: Path, image: Image.Image | None = None, *, caption: str | None = None, **options: object
) -> Path:
    """Write a picture, by default that of the four quarters, and its caption; ``options`` are Pillow's."""
    content = BytesIO()
    kind = str(options.pop("format", "")) or Image.registered_extensions()[path.suffix.lower()]
    (image or quarters()).save(content, kind, **options)
    return write_bytes(path, content.getvalue(), caption=caption)


def write_clip(
    path: Path,
    *,
    frames: int | Sequence[Pixels] = FRAMES,
    codec: str = "libx264",
    rate: Fraction | int = 8,
    size: Size = (64, 64),
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] = _QUICK,
    container: str | None = None,
    muxer: Mapping[str, str] | None = None,
    times_ms: Sequence[int] = (),
    rotation: int = 0,
    aspect: Fraction | None = None,
    caption: str | None = None,
) -> Path:
    """Write a clip, by default of numbered frames, and its caption; ``times_ms`` are when each frame is shown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = [numbered(number, size) for number in range(frames)] if isinstance(frames, int) else frames
    with av.open(path, "w", format=container, options=dict(muxer or {})) as output:
        stream = cast(VideoStream, output.add_stream(codec, rate=rate, options=dict(options)))
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if times_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        for place, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[place], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return write_caption(path, caption)


def write_neighbours(root: Path) -> None:
    """Write the good items that lie beside every bad input."""
    content = BytesIO()
    Image.fromarray(pixels(64, 64, seed=3)).save(content, "png")
    write_bytes(root / "fine.png", content.getvalue())
    write_bytes(root / "steady.mp4", plain_clip())


@cache
def plain_clip() -> bytes:
    """Return the content of a clip of the usual length, as an MP4 file."""
    return clip_bytes()


def clip_bytes(container: str = "mp4", **options: object) -> bytes:
    """Return the content of a clip instead of writing it; ``options`` are those of ``write_clip``."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = write_clip(Path(folder) / f"clip.{container}", **options)  # type: ignore[arg-type]
        return path.read_bytes()


def picture_bytes(kind: str = "png", image: Image.Image | None = None, **options: object) -> bytes:
    """Return the content of a picture instead of writing it; ``options`` are Pillow's."""
    content = BytesIO()
    (image or quarters()).save(content, kind, **options)
    return content.getvalue()


def png(width: int, height: int, *, depth: int, colour: int, scanlines: bytes, interlaced: bool = False) -> bytes:
    """Return a PNG made by hand, of depths and sizes that Pillow does not write (ISO 15948)."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    content = [_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(scanlines)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(content)


def with_chunk(content: bytes, kind: bytes, data: bytes) -> bytes:
    """Return a PNG with one more chunk in front of its pixels."""
    place = content.index(b"IDAT") - 4
    return content[:place] + _chunk(kind, data) + content[place:]


def noise(count: int, *, seed: int = 0) -> bytes:
    """Return random bytes, the same ones every time."""
    return np.random.default_rng(seed).bytes(count)


def overwritten(content: bytes, start: float, stop: float) -> bytes:
    """Return a file with its bytes between two parts of its length, from 0 to 1, replaced by noise."""
    first, last = int(start * len(content)), int(stop * len(content))
    return content[:first] + noise(last - first) + content[last:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
