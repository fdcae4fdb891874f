"""Which frames of a clip become items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

import attrs

from musubi.core.fields import count, field
from musubi.core.spec import Spec
from musubi.data.sample import Window


@attrs.frozen(kw_only=True)
class Windows(Spec, ABC):
    """Cut a clip of so many frames into windows of the wanted lengths."""

    family: ClassVar[str] = "windows"

    @abstractmethod
    def cut(self, frames: int, lengths: Sequence[int], *, step: int = 4) -> tuple[Window, ...]:
        """Return the windows of a clip, each once, in the order of their lengths and then of their first frames.

        None means that the clip is too short for every length. Clips of an architecture have ``step`` * k + 1 frames.
        """


@attrs.frozen(kw_only=True)
class _Fitting(Windows, ABC):
    """Windows of the wanted lengths, as far as these fit into the clip."""

    def cut(self, frames: int, lengths: Sequence[int], *, step: int = 4) -> tuple[Window, ...]:
        fitting = sorted({length for length in lengths if 1 <= length <= frames})
        return tuple(Window(start, n) for n in fitting for start in dict.fromkeys(self._starts(frames, n)))

    @abstractmethod
    def _starts(self, frames: int, length: int) -> Iterable[int]:
        """Return the first frames of the windows of a length that fits, ascending."""


@attrs.frozen(kw_only=True)
class Head(_Fitting):
    """Take the first frames: one window for every wanted length that fits.

    Example:
        >>> from musubi import Head
        >>> [str(window) for window in Head().cut(30, (1, 25, 49))]
        ['00000-001', '00000-025']
    """

    kind: ClassVar[str] = "head"

    def _starts(self, frames: int, length: int) -> Iterable[int]:
        return (0,)


@attrs.frozen(kw_only=True)
class Chunk(_Fitting):
    """Take one window after the other without gap or overlap; what is left over at the end is not used.

    Example:
        >>> from musubi import Chunk
        >>> [str(window) for window in Chunk().cut(30, (13,))]
        ['00000-013', '00013-013']
    """

    kind: ClassVar[str] = "chunk"

    def _starts(self, frames: int, length: int) -> Iterable[int]:
        return range(0, frames - length + 1, length)


@attrs.frozen(kw_only=True)
class Slide(_Fitting):
    """Take a window at every ``stride``-th frame; those nearer to one another than their length overlap.

    Example:
        >>> from musubi import Slide
        >>> [str(window) for window in Slide(stride=8).cut(30, (13,))]
        ['00000-013', '00008-013', '00016-013']
    """

    kind: ClassVar[str] = "slide"

    stride: int = field(default=1, check=count())

    def _starts(self, frames: int, length: int) -> Iterable[int]:
        return range(0, frames - length + 1, self.stride)


@attrs.frozen(kw_only=True)
class Spread(_Fitting):
    """Take ``count`` windows, the first at the clip's start, the last at its end, the others evenly between.

    A short clip has fewer places than ``count``; each is taken once. The reference calls this ``uniform``.

    Example:
        >>> from musubi import Spread
        >>> [str(window) for window in Spread(count=3).cut(40, (13,))]
        ['00000-013', '00013-013', '00027-013']
    """

    kind: ClassVar[str] = "uniform"

    count: int = field(check=count())

    def _starts(self, frames: int, length: int) -> Iterable[int]:
        last, gaps = frames - length, self.count - 1
        if gaps == 0:
            return (0,)
        # As numpy.linspace has it: the gap is divided first, and the end is exact.
        return [int(i * (last / gaps)) for i in range(gaps)] + [last]


@attrs.frozen(kw_only=True)
class Full(Windows):
    """Take the whole clip, at most ``max_frames`` of it, at the longest legal length; wanted lengths do not matter.

    Example:
        >>> from musubi import Full
        >>> [str(window) for window in Full().cut(40, ())]
        ['00000-037']
    """

    kind: ClassVar[str] = "full"

    max_frames: int = field(default=129, check=count())

    def cut(self, frames: int, lengths: Sequence[int], *, step: int = 4) -> tuple[Window, ...]:
        if frames < 1:
            return ()
        return (Window(0, (min(frames, self.max_frames) - 1) // step * step + 1),)
