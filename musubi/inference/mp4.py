"""Writing MP4 files with PyAV."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.codec.codec import Codec, UnknownCodecError
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

_BT709 = 1
"""The number of BT.709 in the tables of primaries, transfer curves and matrices (ITU-T H.273)."""

_ENCODERS = ("libx264", "libopenh264", "mpeg4")
"""By preference; the last is a part of FFmpeg itself."""


def write_mp4(path: Path, frames: Pixels, *, fps: float, crf: int, metadata: Mapping[str, str]) -> None:
    """Write frames (F, H, W, 3) as 4:2:0 video in BT.709 colours, H.264 where this PyAV can encode it.

    Frames go to the encoder one by one. ``metadata`` is stored as tags of the file.
    """
    options = {"movflags": "+faststart+use_metadata_tags"}
    with av.open(str(path), mode="w", format="mp4", options=options) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(_encoder(), rate=_rate(fps))
        assert isinstance(stream, VideoStream)
        _set_up(stream, frames, crf)
        for frame in frames:
            container.mux(stream.encode(_video_frame(frame)))
        container.mux(stream.encode(None))


def _encoder() -> str:
    for name in _ENCODERS[:-1]:
        try:
            Codec(name, "w")
        except UnknownCodecError:
            continue
        return name
    return _ENCODERS[-1]


def _rate(fps: float) -> Fraction:
    return Fraction(fps).limit_denominator(1001)


def _set_up(stream: VideoStream, frames: Pixels, crf: int) -> None:
    height, width = frames.shape[1:3]
    stream.width, stream.height = width + width % 2, height + height % 2
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    if context.name == "libx264":
        stream.options = {"crf": str(crf), "preset": "medium"}
    else:
        stream.bit_rate = max(1_000_000, int(width * height * float(stream.average_rate or 24) / 4))


def _video_frame(frame: Pixels) -> av.VideoFrame:
    """Return one frame in YUV, its sides made even by repeating the last row or column."""
    even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
    picture = av.VideoFrame.from_ndarray(even, format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
