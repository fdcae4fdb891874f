"""At which size a conditioning picture is encoded."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, cast

import attrs

from musubi.architecture import Size
from musubi.core.errors import Issue
from musubi.core.fields import accepting, count, each
from musubi.core.spec import Spec


def _size(value: int | Iterable[int]) -> Size:
    """Return a square for a single number; what is no size is left for the check of its type."""
    if isinstance(value, int):
        return value, value
    try:
        return cast(Size, tuple(value))
    except TypeError:
        return cast(Size, value)


@attrs.frozen(kw_only=True)
class ControlSize(Spec, ABC):
    """Choose the size of a conditioning picture."""

    family: ClassVar[str] = "control_size"

    @abstractmethod
    def choose(self, own: Size, *, target: Size, step: int) -> Size:
        """Return the (width, height) for a picture of size ``own`` beside a target bucket; sides in ``step`` pixels."""


@attrs.frozen(kw_only=True)
class LikeTarget(ControlSize):
    """Resize and crop to the bucket of the picture it belongs to.

    Example:
        >>> from musubi import LikeTarget
        >>> LikeTarget().choose((800, 600), target=(512, 512), step=16)
        (512, 512)
    """

    kind: ClassVar[str] = "target"

    def choose(self, own: Size, *, target: Size, step: int) -> Size:
        return target


@attrs.frozen(kw_only=True)
class OwnSize(ControlSize):
    """Keep the picture's own size, trimmed to whole steps, of which each side has at least one.

    Example:
        >>> from musubi import OwnSize
        >>> OwnSize().choose((801, 9), target=(512, 512), step=16)
        (800, 16)
    """

    kind: ClassVar[str] = "native"

    def choose(self, own: Size, *, target: Size, step: int) -> Size:
        return _at_least_one(own[0], step), _at_least_one(own[1], step)


@attrs.frozen
class FixedSize(ControlSize):
    """Take one (width, height) for all, trimmed to whole steps; pictures of another shape are cropped at their sides.

    Example:
        >>> from musubi import FixedSize
        >>> FixedSize((832, 1248)).choose((800, 600), target=(512, 512), step=16)
        (832, 1248)
    """

    kind: ClassVar[str] = "fixed"

    size: Size = attrs.field(converter=_size, metadata=accepting(int | Size))

    def problems(self) -> Iterable[Issue]:
        """Yield a size that is none."""
        wrong = each(count())(self.size)
        if wrong is not None:
            yield Issue("size", wrong, "give (width, height), or one number for a square")

    def choose(self, own: Size, *, target: Size, step: int) -> Size:
        return _at_least_one(self.size[0], step), _at_least_one(self.size[1], step)


@attrs.frozen
class NearArea(ControlSize):
    """Keep the picture's own aspect ratio, as nearly as whole steps allow, at about the area of ``resolution``.

    ``resolution`` is (width, height), or one number for a square; only its area counts. The search is the reference's
    (``calculate_bucket_resolution``): five widths around the ideal one, the nearest ratio wins. Where it finds no legal
    size, for ratios beyond all pictures, the longest strip of one step is taken.

    Example:
        >>> from musubi import NearArea
        >>> NearArea(1024).choose((800, 600), target=(512, 512), step=16)
        (1184, 880)
    """

    kind: ClassVar[str] = "area"

    resolution: Size = attrs.field(converter=_size, metadata=accepting(int | Size))

    def problems(self) -> Iterable[Issue]:
        """Yield an area that is none."""
        wrong = each(count())(self.resolution)
        if wrong is not None:
            yield Issue("resolution", wrong, "give (width, height), or one number for a square")

    def choose(self, own: Size, *, target: Size, step: int) -> Size:
        area = self.resolution[0] * self.resolution[1]
        aspect = own[0] / own[1]
        ideal = _floor(int(math.sqrt(area * aspect)), step)
        widths = [width for i in range(-2, 3) if (width := ideal + i * step) > 0]
        sizes = [(width, height) for width in widths if (height := _floor(area // width, step)) > 0]
        if not sizes:
            return _at_least_one(area // step, step), step
        return min(sizes, key=lambda size: abs(size[0] / size[1] - aspect))


def _floor(length: int, step: int) -> int:
    return length - length % step


def _at_least_one(length: int, step: int) -> int:
    return max(step, _floor(length, step))
