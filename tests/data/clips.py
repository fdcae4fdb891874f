"""Clips of many formats, encoded on the spot, and what plain decoding from the start gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from tests.data.files import pixels

OPEN_GROUPS = {"bf": "3", "g": "12", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}
CLOSED_GROUPS = {"bf": "3", "g": "12", "x264-params": "scenecut=0:b-adapt=0"}
NO_REORDERING = {"bf": "0", "g": "12", "x264-params": "scenecut=0"}
QUICK_VP9 = {"g": "12", "deadline": "realtime", "cpu-used": "8"}


def film(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = 70,
    rate: Fraction | int = 24,
    size: tuple[int, int] = (64, 48),
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] = CLOSED_GROUPS,
    times_ms: Sequence[int] = (),
    rotation: int = 0,
    aspect: Fraction | None = None,
    muxer: Mapping[str, str] | None = None,
) -> Path:
    """Write a clip of a picture that moves by a pixel a frame; ``times_ms`` are when each frame is shown."""
    with av.open(path, "w", options=dict(muxer or {})) as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=dict(options)))
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if times_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(pixels(*size), number, axis=1), format="rgb24")
            if times_ms:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(
    source: Path,
    path: Path,
    *,
    start: int = 0,
    change: Callable[[Packet[VideoStream]], None] | None = None,
    muxer: Mapping[str, str] | None = None,
) -> Path:
    """Copy the packets of a clip, from the ``start``-th in the order of decoding, into another file."""
    with av.open(source) as read, av.open(path, "w", options=dict(muxer or {})) as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        packets = [packet for packet in read.demux(video=0) if packet.size]
        for packet in packets[start:]:
            if change is not None:
                change(packet)
            packet.stream = stream
            written.mux(packet)
    return path


def decoded(path: Path) -> list[NDArray[np.uint8]]:
    """Return all frames in the order in which they are shown, decoded from the start as the reference does."""
    with av.open(path) as container:
        images = [frame.to_image() for frame in container.decode(video=0)]  # type: ignore[no-untyped-call]
    return [np.asarray(image) for image in images]
