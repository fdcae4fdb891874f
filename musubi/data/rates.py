"""At which rate a clip is trained: the model's own, the file's, or what the user says the file's is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise, repeat
from typing import ClassVar

import attrs

from musubi.core.fields import field, optional, positive
from musubi.core.spec import Spec
from musubi.data.sample import Probe

_SAME = 1.001e-3
"""Rates that differ by less are one, 23.976 and 24: a frame shown twice jars, 0.1 % of speed does not."""


@attrs.frozen(kw_only=True)
class FrameRate(Spec, ABC):
    """Choose the frames that a clip consists of."""

    family: ClassVar[str] = "rate"

    @abstractmethod
    def frames(self, clip: Probe, *, fps: float) -> Sequence[int]:
        """Return the file's own frame for each frame of the clip at ``fps`` frames a second, ascending."""


@attrs.frozen(kw_only=True)
class EveryFrame(FrameRate):
    """Take every frame as it comes, whatever its time.

    Example:
        >>> from musubi import EveryFrame
        >>> from musubi.data.sample import Probe
        >>> list(EveryFrame().frames(Probe(kind="video", size=(64, 48), frames=4, fps=60.0), fps=16.0))
        [0, 1, 2, 3]
    """

    kind: ClassVar[str] = "every_frame"

    def frames(self, clip: Probe, *, fps: float) -> Sequence[int]:
        return range(clip.frames)


@attrs.frozen(kw_only=True)
class Resample(FrameRate):
    """Show the clip at its real speed: at every tick of the rate the frame that is nearest in time.

    Of two equally near the earlier is taken. A clip slower than the rate shows frames twice. Where a file does not tell
    its rate, or has the wanted one to 0.1 % (23.976 for 24), every frame is taken.

    Args:
        fps: The rate; None is the model's own.

    Example:
        >>> from musubi import Resample
        >>> from musubi.data.sample import Probe
        >>> Resample().frames(Probe(kind="video", size=(64, 48), frames=8, fps=30.0), fps=15.0)
        [0, 2, 4, 6]
    """

    kind: ClassVar[str] = "resample"

    fps: float | None = field(default=None, check=optional(positive))

    def frames(self, clip: Probe, *, fps: float) -> Sequence[int]:
        wanted = self.fps or fps
        same = not clip.times and abs(clip.fps - wanted) <= _SAME * wanted
        if clip.frames < 1 or clip.fps <= 0 or same:
            return range(clip.frames)
        ticks = max(1, math.floor(clip.frames * wanted / clip.fps + 0.5))
        if clip.times:
            return _nearest(clip.times, ticks, wanted)
        last = clip.frames - 1
        # The tolerance lets rounding decide no tie.
        return [min(last, math.ceil(k * clip.fps / wanted - 0.5 - 1e-9)) for k in range(ticks)]


@attrs.frozen(kw_only=True)
class StatedRate(FrameRate):
    """Believe what the user says of the files' rate and drop frames as the reference does.

    Frames are only dropped: of files slower than the rate every frame is taken.

    Args:
        source_fps: The files' frames a second, whatever they themselves say.

    Example:
        >>> from musubi import StatedRate
        >>> from musubi.data.sample import Probe
        >>> StatedRate(source_fps=30.0).frames(Probe(kind="video", size=(64, 48), frames=8), fps=16.0)
        [0, 2, 4, 6]
    """

    kind: ClassVar[str] = "stated"

    source_fps: float = field(check=positive)

    def frames(self, clip: Probe, *, fps: float) -> Sequence[int]:
        step = fps / self.source_fps
        if clip.frames < 1 or step >= 1:
            return range(clip.frames)
        # A running sum, not i * step: the reference's rounding decides which frames are dropped (`load_video`).
        ticks = map(int, accumulate(repeat(step, clip.frames - 1), initial=0.0))
        return [0, *(i for i, (before, tick) in enumerate(pairwise(ticks), start=1) if tick != before)]


def _nearest(times: Sequence[float], ticks: int, fps: float) -> list[int]:
    """Return the frame nearest in time to each tick."""
    middles = [(before + after) / 2 for before, after in pairwise(times)]
    return [bisect_left(middles, tick / fps - 1e-9) for tick in range(ticks)]
