"""When the frames of a video stream are shown, as its container tells without decoding."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.index import IndexEntry
    from av.packet import Packet
    from av.video.stream import VideoStream

_LEAP_S = 60.0
"""Longer than this no frame of a clip is shown; a file that says so does not know its times."""

_ROUNDED_S = 0.001
"""Times that have ever passed through Matroska or FLV are rounded to this."""

_REORDERED = 64
"""How many places the orders of decoding and of showing may differ; codecs keep 16 pictures of two fields at most."""


@attrs.frozen(kw_only=True)
class Timeline:
    """The frames of a stream in the order in which they are shown.

    Args:
        frames: How many there are.
        ticks: When each is shown, ascending, in units of the stream's time base; empty where the file does not tell.
        keys: Where decoding can begin, ascending; in ticks, of showing or of decoding.
        exact: Whether decoded frames carry these very ticks, so that a tick tells a frame's number.
        cut: Whether the file ends before its frames do.
    """

    frames: int
    ticks: Sequence[int] = ()
    keys: Sequence[int] = ()
    exact: bool = False
    cut: bool = False

    def number(self, tick: int | None) -> int | None:
        """Return which frame is shown at a tick, None if there is none."""
        place = len(self.ticks) if tick is None else bisect_left(self.ticks, tick)
        return place if place < len(self.ticks) and self.ticks[place] == tick else None

    def keys_before(self, tick: int) -> Sequence[int]:
        """Return where decoding can begin to reach a tick, the nearest place first."""
        return self.keys[: bisect_right(self.keys, tick)][::-1]

    def starting(self, first: int | None) -> Timeline:
        """Return the timeline from the first frame that can be decoded; others before it lack what they build on."""
        place = self.number(first) if self.exact else None
        if place is None:
            return attrs.evolve(self, exact=False)
        return attrs.evolve(self, frames=self.frames - place, ticks=self.ticks[place:])

    def until(self, end: int) -> Timeline:
        """Return the timeline of the frames before a tick: those that follow are not all there."""
        if not self.exact:
            return self
        place = bisect_left(self.ticks, end)
        return attrs.evolve(self, frames=place, ticks=self.ticks[:place])

    def pace(self, *, time_base: float, stated: float) -> tuple[float, tuple[float, ...]]:
        """Return the frames a second and, where they are not evenly spaced, the seconds from the first to each.

        Ticks are rounded times: the ``stated`` rate is believed where it agrees with them.
        """
        seconds = [(tick - self.ticks[0]) * time_base for tick in self.ticks]
        if not seconds or seconds[-1] <= 0 or any(after - before > _LEAP_S for before, after in pairwise(seconds)):
            return stated, ()
        measured = (len(seconds) - 1) / seconds[-1]
        for rate in (stated, measured):
            if _even(seconds, rate, time_base):
                return rate, ()
        return measured, tuple(seconds)


def indexed(container: InputContainer, stream: VideoStream) -> Timeline | None:
    """Return what the index of all samples tells (MP4, MOV and AVI have one); None if it is not that of this file."""
    # PyAV has them from 17 on; without them packets are read through.
    entries: Sequence[IndexEntry] = tuple(getattr(stream, "index_entries", ()))
    if not entries or len(entries) != stream.frames or any(e.pos + e.size > container.size for e in entries):
        return None
    there = [e for e in entries if e.size > 0 and not e.is_discard]
    # An index has times of decoding. They are those of showing where nothing is reordered.
    return Timeline(
        frames=len(there),
        ticks=[e.timestamp for e in there],
        keys=[e.timestamp for e in there if e.is_keyframe],
        exact=not stream.codec_context.has_b_frames,
    )


def regular(found: Timeline, first: int | None) -> Timeline:
    """Return the times of showing from those of decoding, if these are strictly regular.

    Reordered frames fill the same regular places (not so in AVI, which knows no times of showing); where these begin is
    told by the ``first`` frame.
    """
    gaps = {after - before for before, after in pairwise(found.ticks)}
    gap = gaps.pop() if len(gaps) == 1 else 0
    if first is None or gap <= 0:
        return found
    return attrs.evolve(found, ticks=range(first, first + gap * found.frames, gap), exact=True)


def demuxed(container: InputContainer, stream: VideoStream, *, until: int | None = None) -> Timeline:
    """Return what the packets tell: of the whole file, or as far as it takes to be certain of frame ``until``."""
    shown: list[int | None] = []
    decoded: list[int | None] = []
    keys: list[int] = []
    key, end, read, cut = 0, None, 0, False
    for packet in container.demux(stream):
        if packet.is_corrupt:  # the file ends in the middle of it
            end, cut = packet.pts, True
            break
        read += packet.dts is not None or packet.pts is not None
        if not _becomes_frame(packet):
            continue
        if packet.is_keyframe:
            # What follows a keyframe is shown after the keyframe before it.
            if until is not None and key > until:
                break
            key = len(shown)
            keys += [] if packet.pts is None else [packet.pts]
        shown.append(packet.pts)
        decoded.append(packet.dts)
    told = _told(shown, decoded, keys, reorders=bool(stream.codec_context.has_b_frames))
    told = attrs.evolve(told, cut=cut or (until is None and read < stream.frames))
    return told if end is None else told.until(end)


def _told(
    shown: Sequence[int | None], decoded: Sequence[int | None], keys: Sequence[int], *, reorders: bool
) -> Timeline:
    """Return the timeline of packets in the order of decoding; a file may leave out times or make them up."""
    times = [tick for tick in shown if tick is not None]
    if len(times) < len(shown):
        instead = sorted(tick for tick in decoded if tick is not None)
        return Timeline(frames=len(shown), ticks=instead if len(instead) == len(shown) else ())
    order = sorted(range(len(times)), key=times.__getitem__)
    if any(abs(place - number) > _REORDERED for place, number in enumerate(order)):
        return Timeline(frames=len(times))  # several recordings in one file, each of which counts from 0
    ticks = [times[number] for number in order]
    distinct = all(before < after for before, after in pairwise(ticks))
    plausible = not reorders or ticks != times
    return Timeline(frames=len(ticks), ticks=ticks, keys=sorted(keys), exact=distinct and plausible)


def _becomes_frame(packet: Packet[VideoStream]) -> bool:
    """Return whether a packet is shown: has content, is not cut off by an edit list, and not for reference only."""
    if packet.size == 0 or packet.is_discard:
        return False
    # RFC 6386, 9.1: the fifth bit of a VP8 frame is show_frame. Other codecs pack what is not shown with what is.
    return packet.stream.codec_context.name != "vp8" or bool(memoryview(packet)[0] & 0x10)


def _even(seconds: Sequence[float], rate: float, time_base: float) -> bool:
    """Return whether times are those of a rate, but for their rounding."""
    if rate <= 0:
        return False
    tolerance = min(1.01 * max(time_base, _ROUNDED_S), 0.25 / rate)
    return all(abs(second - number / rate) <= tolerance for number, second in enumerate(seconds))
