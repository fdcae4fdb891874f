"""Small real media files for tests, drawn and encoded on the spot."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image


def pixels(width: int, height: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Return smooth colourful RGB that survives compression; another one for each seed."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin((x * (c + 1) + y * (3 - c)) / (20 + seed % 7) + seed * (c + 1)) for c in range(3)]
    return np.stack([(127 + 120 * wave).astype(np.uint8) for wave in waves], axis=2)


def picture(path: Path, *, size: tuple[int, int] = (64, 48), seed: int = 0, caption: str | None = "a picture") -> Path:
    """Write a picture, by default with a caption beside it."""
    Image.fromarray(pixels(*size, seed=seed)).save(path)
    return _captioned(path, caption)


def raw_png(path: Path, values: NDArray[Any], *, before: bytes = b"", after: bytes = b"") -> Path:
    """Write uint8 or uint16 of shape (height, width, 1 to 4 channels) as they are, with chunks around the pixels."""
    height, width, channels = values.shape
    bits, colour = 8 * values.dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = values.astype(">u2" if bits == 16 else "u1").reshape(height, width * channels)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + before + data + after + png_chunk(b"IEND", b""))
    return path


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def clip(
    path: Path,
    *,
    frames: int = 9,
    size: tuple[int, int] = (64, 48),
    caption: str | None = "a clip",
    codec: str = "h264",
) -> Path:
    """Write a clip whose frame ``i`` is about ``20 * i % 256`` bright in red, by default with a caption beside it."""
    with av.open(path, "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=8))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            frame = pixels(*size)
            frame[:, :, 0] = 20 * number % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return _captioned(path, caption)


def _captioned(path: Path, caption: str | None) -> Path:
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path
