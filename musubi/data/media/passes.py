"""Windows of one file, decoded in as few passes as they allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from musubi.data.media.resize import Pixels

if TYPE_CHECKING:
    from torch import Tensor

_LEAP = 100
"""Over more frames than these a new pass begins at a keyframe, rather than to decode all between two windows."""


class Passes:
    """Give the windows of a file one by one. As long as they go forward, each frame is decoded and resized once.

    Memory is taken for a window, for what of it the next one shows again, and for one frame. For one thread at a time.
    """

    def __init__(
        self,
        windows: Sequence[Sequence[int]],
        *,
        read: Callable[[Sequence[int]], Iterable[Pixels]],
        resize: Callable[[Pixels], Pixels],
        shape: Sequence[int],
    ) -> None:
        """Prepare to read.

        Args:
            windows: The frames of each window, ascending; a frame may repeat.
            read: Decodes frames given by different ascending numbers.
            resize: Brings a decoded frame to ``shape``.
            shape: Of one frame.
        """
        self._windows, self._read, self._resize, self._shape = windows, read, resize, tuple(shape)
        self._stream: Iterator[tuple[int, Pixels]] = iter(())
        self._shown: dict[int, Pixels] = {}
        self._next = self._last = -1

    def load(self, place: int) -> Tensor:
        """Return the frames of the window at a place in the sequence as uint8 of shape (frames, ...).

        Raises:
            DataError: A frame cannot be read; the other windows still may be.
        """
        if place != self._next:
            self._begin(place)
        try:
            window = self._filled(place)
        except BaseException:
            self._stop()
            raise
        if place < self._last:
            self._next = place + 1
        else:
            self._stop()
        return window

    def _stop(self) -> None:
        """Let go of the file; the next window begins another pass."""
        self._stream, self._shown = iter(()), {}
        self._next = self._last = -1

    def _begin(self, place: int) -> None:
        last = place
        while last + 1 < len(self._windows) and self._goes_on(last):
            last += 1
        wanted = sorted({number for window in self._windows[place : last + 1] for number in window})
        self._stop()
        self._stream, self._last = zip(wanted, self._read(wanted), strict=True), last

    def _goes_on(self, place: int) -> bool:
        """Return whether the next window can be read on the way: it begins neither earlier nor far behind the end."""
        here, following = self._windows[place], self._windows[place + 1]
        return here[0] <= following[0] <= here[-1] + _LEAP

    def _filled(self, place: int) -> Tensor:
        import torch

        window = self._windows[place]
        again = self._windows[place + 1][0] if place < self._last else window[-1] + 1
        result = torch.empty((len(window), *self._shape), dtype=torch.uint8)
        target = result.numpy()
        for at, number in enumerate(window):
            target[at] = self._frame(number)
            if number < again and number not in window[at + 1 : at + 2]:
                del self._shown[number]
        return result

    def _frame(self, number: int) -> Pixels:
        while number not in self._shown:
            found, picture = next(self._stream)
            self._shown[found] = self._resize(picture)
        return self._shown[number]
