"""Small real media files for tests, drawn and encoded on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import cast

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
