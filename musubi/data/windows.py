"""Which frames of a clip become items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import attrs

from musubi.core.spec import Spec
from musubi.data.sample import Window


@attrs.frozen(kw_only=True)
class Windows(Spec, ABC):
    """Cut a clip of so many frames into windows of the wanted lengths."""

    family: ClassVar[str] = "windows"

    @abstractmethod
    def cut(self, frames: int, lengths: Sequence[int]) -> tuple[Window, ...]:
        """Return the windows of a clip; none means that the clip is too short for every length."""

    def horizon(self, lengths: Sequence[int]) -> int | None:
        """Return how many leading frames decide the cut, or None if the clip's whole length does."""
        return None


@attrs.frozen(kw_only=True)
class Head(Windows):
    """Take the first frames: one window for every wanted length that fits.

    Example:
        >>> from musubi import Head
        >>> [str(window) for window in Head().cut(30, (1, 25, 49))]
        ['00000-001', '00000-025']
    """

    kind: ClassVar[str] = "head"

    def cut(self, frames: int, lengths: Sequence[int]) -> tuple[Window, ...]:
        return tuple(Window(0, length) for length in sorted(set(lengths)) if 1 <= length <= frames)

    def horizon(self, lengths: Sequence[int]) -> int:
        return max(lengths)
