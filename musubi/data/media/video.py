"""Clips: what they are, and their frames by number. Files are decoded by PyAV, folders of pictures one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import attrs
import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from musubi.core.errors import DataError, Issue, shown
from musubi.data.media.frame_folder import probe_folder, read_folder
from musubi.data.media.readable import readable
from musubi.data.media.resize import Pixels
from musubi.data.media.timeline import Timeline, demuxed, indexed, regular
from musubi.data.sample import Probe

_NEAR = 32
"""Frames before this number are decoded from the start: to find a nearer place costs as much."""

_FRUITLESS = 1000
"""After so many packets without a frame a file is given up."""

_KEYFRAMES = 3
"""How many keyframes, going back, are tried to reach a frame: some containers seek by times of decoding."""

_LISTS = frozenset({"applehttp", "concat", "dash", "hls", "imf", "sdp"})
"""Formats of FFmpeg that lead to other files, or into the net, whatever the file is called."""


class _AstrayError(Exception):
    """What is decoded after a seek cannot be told to be the frames looked for."""


def probe_clip(path: Path) -> Probe:
    """Return size, frames and rate of a clip: a file, or a folder of pictures.

    The first frame is decoded, to be sure that it can be. The size is as shown: turned as the file's rotation says,
    with square pixels. The frames and their times are told by the file's index, or else by reading its packets through.

    Raises:
        DataError: The file cannot be read, or holds no frame.
    """
    if path.is_dir():
        return probe_folder(path)
    with readable(path):
        seen = _survey(path)
        height, width = _Picture(seen.aspect)(seen.first).shape[:2]
        fps, times = seen.timeline.pace(time_base=seen.time_base, stated=seen.stated_rate)
        found = seen.timeline
        return Probe(kind="video", size=(width, height), frames=found.frames, fps=fps, times=times, cut=found.cut)


def read_clip(path: Path, frames: Sequence[int]) -> Iterator[Pixels]:
    """Yield the wanted frames, given by ascending numbers that may repeat, as RGB of shape (height, width, 3).

    Frame ``i`` is the one shown as the ``i``-th. Decoding begins near the first wanted one and ends after the last; one
    picture is held at a time, and the same array is given again for a number that repeats.

    Raises:
        DataError: The file cannot be read, is damaged, or ends before the last wanted frame.
    """
    if path.is_dir():
        yield from read_folder(path, frames)
        return
    left = deque(frames)
    with readable(path):
        if left and left[0] >= _NEAR:
            with suppress(_AstrayError):
                yield from _sought(path, left)
        if left:
            yield from _from_start(path, left)


@attrs.frozen(kw_only=True)
class _Survey:
    """A file's first frame, and what is known of all."""

    first: VideoFrame
    aspect: float
    time_base: float
    stated_rate: float
    timeline: Timeline


def _survey(path: Path, *, until: int | None = None) -> _Survey:
    """Decode the first frame and find out when frames are shown, if need be by reading the packets to ``until``."""
    with _opened(path) as (container, stream):
        found = indexed(container, stream)
        first, complete = _first(container, stream, path)
        aspect = _aspect(stream)
        time_base, stated_rate = float(stream.time_base or 0), float(stream.average_rate or 0)
        if found is not None and not found.exact and "mov" in container.format.name:
            found = regular(found, first.pts)
        found = found.starting(first.pts) if found is not None and complete else None
    if found is None or not found.exact:
        with _opened(path) as (container, stream):
            found = demuxed(container, stream, until=until).starting(first.pts)
    return _Survey(first=first, aspect=aspect, time_base=time_base, stated_rate=stated_rate, timeline=found)


def _from_start(path: Path, left: deque[int]) -> Iterator[Pixels]:
    """Yield the frames that are left by decoding all up to the last."""
    number = -1
    with _opened(path, threaded=left[-1] > 0) as (container, stream):
        picture = _Picture(_aspect(stream))
        try:
            for number, frame in enumerate(_decoded(container.demux(stream), path)):
                if frame.is_corrupt:
                    raise _damaged(path, number)
                yield from _served(number, frame, left, picture)
                if not left:
                    return
        except FFmpegError as error:
            raise _damaged(path, number + 1) from error
    raise _truncated(path, wanted=left[0], found=number + 1)


def _sought(path: Path, left: deque[int]) -> Iterator[Pixels]:
    """Yield the frames that are left by decoding from the keyframe before the first.

    Raises:
        _AstrayError: Timestamps do not identify the frames; ``left`` are those not yet yielded.
    """
    timeline = _survey(path, until=left[-1]).timeline
    if not timeline.exact or left[-1] >= timeline.frames:
        raise _AstrayError
    with _opened(path, threaded=True) as (container, stream):
        picture = _Picture(_aspect(stream))
        number = -1
        for number, frame in _from_key(container, stream, path, timeline, timeline.ticks[left[0]]):
            yield from _served(number, frame, left, picture)
            if not left:
                return
    if number < 0:
        raise _AstrayError
    raise _truncated(path, wanted=left[0], found=number + 1)


def _from_key(
    container: InputContainer, stream: VideoStream, path: Path, timeline: Timeline, tick: int
) -> Iterator[tuple[int, VideoFrame]]:
    """Yield numbered frames from the nearest keyframe at or before a tick; each must be where it is expected."""
    key, packets = _keyframe(container, stream, timeline, tick)
    first = timeline.number(key.pts)
    if key.pts is None or first is None:
        raise _AstrayError
    expected = first
    try:
        for frame in _decoded(chain([key], packets), path):
            if frame.pts is not None and frame.pts < key.pts:
                continue  # shown before the keyframe, and built on what was not decoded
            if frame.is_corrupt or timeline.number(frame.pts) != expected:
                raise _AstrayError
            if expected == first and frame.pict_type != PictureType.I:
                raise _AstrayError  # the first of a gradual refresh: it is called a keyframe, but is no whole picture
            yield expected, frame
            expected += 1
    except FFmpegError as error:
        raise _AstrayError from error


def _keyframe(
    container: InputContainer, stream: VideoStream, timeline: Timeline, tick: int
) -> tuple[Packet[VideoStream], Iterator[Packet[VideoStream]]]:
    """Return the packet of the nearest keyframe shown at or before a tick, and those that follow it."""
    for place in (tick, *timeline.keys_before(tick)[:_KEYFRAMES]):
        container.seek(place, stream=stream)
        packets = container.demux(stream)
        key = next((packet for packet in packets if packet.size and packet.is_keyframe), None)
        if key is not None and key.pts is not None and key.pts <= tick:
            return key, packets
    raise _AstrayError


def _first(container: InputContainer, stream: VideoStream, path: Path) -> tuple[VideoFrame, bool]:
    """Return the first frame that can be decoded, and whether no packet before it is for an earlier one."""
    earlier: list[int] = []

    def noted() -> Iterator[Packet[VideoStream]]:
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None and not packet.is_discard:
                earlier.append(packet.pts)
            yield packet

    try:
        frame = next(_decoded(noted(), path), None)
    except FFmpegError as error:
        raise _damaged(path, 0) from error
    if frame is None:
        raise DataError("cannot read", [Issue(shown(path), "has no frame", "remove it or give another file")])
    if frame.is_corrupt:
        raise _damaged(path, 0)
    return frame, frame.pts is not None and min(earlier, default=frame.pts) >= frame.pts


def _decoded(packets: Iterable[Packet[VideoStream]], path: Path) -> Iterator[VideoFrame]:
    """Yield the frames of packets in the order in which they are shown."""
    fruitless = 0
    for packet in packets:
        if packet.is_corrupt:  # the file ends in the middle of it: give what the decoder still keeps from before it
            kept = packet.stream.decode()
            yield from (frame for frame in kept if frame.pts is None or packet.pts is None or frame.pts < packet.pts)
            return
        for frame in packet.decode():
            fruitless = 0
            yield frame
        fruitless += not packet.is_discard
        if fruitless > _FRUITLESS:
            hint = f"{fruitless} packets hold no frame that can be decoded; copy or export it again"
            raise DataError("cannot read", [Issue(shown(path), "is damaged", hint)])


def _served(number: int, frame: VideoFrame, left: deque[int], picture: _Picture) -> Iterator[Pixels]:
    """Yield a frame's picture as often as it comes next, and take it off what is left."""
    if left[0] != number:
        return
    pixels = picture(frame)
    while left and left[0] == number:
        left.popleft()
        yield pixels


class _Picture:
    """Turns frames into RGB as they are shown; keeps what it has prepared for the next."""

    def __init__(self, aspect: float) -> None:
        self._aspect = aspect
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> Pixels:
        """Return 8 bits of shape (height, width, 3), alpha dropped."""
        width = round(frame.width * self._aspect)
        method = None if width == frame.width else "BICUBIC"
        rgb = self._reformatter.reformat(frame, width=width, format="rgb24", interpolation=method)
        pixels = np.asarray(rgb.to_ndarray(), np.uint8)
        quarters = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, k=quarters)) if quarters else pixels


def _aspect(stream: VideoStream) -> float:
    """Return how much wider than high a pixel is shown; 1 where the file does not tell, or says next to nothing."""
    ratio = float(stream.sample_aspect_ratio or 1)
    return ratio if 0.1 <= ratio <= 10 and abs(ratio - 1) > 0.01 else 1.0


@contextmanager
def _opened(path: Path, *, threaded: bool = False) -> Generator[tuple[InputContainer, VideoStream]]:
    """Open a file and choose its clip; ``threaded`` decodes several frames at a time, which does not pay for one."""
    with _container(path) as container:
        stream = _clip_stream(container, path)
        stream.thread_type = "AUTO" if threaded else "SLICE"
        yield container, stream


def _container(path: Path) -> InputContainer:
    name = str(path.absolute())  # a relative name may look like a protocol: "concat:a.mp4"
    try:
        return av.open(name)
    except UnicodeDecodeError:
        return av.open(name, metadata_errors="replace")  # titles in another encoding do not matter


def _clip_stream(container: InputContainer, path: Path) -> VideoStream:
    """Return the first video stream that is not a cover picture."""
    if not _LISTS.isdisjoint(container.format.name.split(",")):
        raise DataError(
            "cannot read", [Issue(shown(path), "is a list of other files, not a clip", "give these instead")]
        )
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    stream = next((stream for stream in container.streams.video if not stream.disposition & covers), None)
    if stream is None:
        raise DataError("cannot read", [Issue(shown(path), "has no video stream", "remove it or give another file")])
    if getattr(stream, "codec_context", None) is None:
        raise DataError("cannot read", [Issue(shown(path), "is in a format that is not read", "convert it to H.264")])
    return stream


def _damaged(path: Path, number: int) -> DataError:
    hint = f"frame {number} cannot be decoded; copy or export it again"
    return DataError("cannot read", [Issue(shown(path), "is damaged", hint)])


def _truncated(path: Path, *, wanted: int, found: int) -> DataError:
    hint = f"frame {wanted} is wanted, but only {found} frames could be read; copy or export it again"
    return DataError("cannot read", [Issue(shown(path), "is truncated", hint)])
