"""When and at which noise levels the loss on held-out items is measured, and which measurement is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import attrs

from musubi.core.errors import Issue
from musubi.core.events import Validated
from musubi.core.fields import count, each, field, optional
from musubi.core.spec import Spec


def _level(value: object) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
    return None if good else f"must be a noise level above 0, at most 1, got {value!r}"


@attrs.frozen(kw_only=True)
class Validation(Spec):
    """Measure the loss on the items held out of training, every so many steps or epochs, and at the end.

    Every item is measured at each of the noise levels ``sigmas``, with noise that depends on ``seed``, the item and the
    level alone, with its first caption and without dropout. So two measurements differ only by what was learnt between
    them; batch size, order and the number of processes do not matter. Each level stands for a band of its own, by
    default a quarter of the path. ``items`` limits how many items are measured.

    Hold items out with ``dataset.with_validation(share=0.1)``.

    Example:
        >>> from musubi import Validation
        >>> Validation(every=250).bands
        ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
    """

    every: int | None = field(default=None, check=optional(count()))
    every_epochs: int | None = field(default=None, check=optional(count()))
    sigmas: tuple[float, ...] = field(default=(0.125, 0.375, 0.625, 0.875), check=each(_level))
    items: int | None = field(default=None, check=optional(count()))
    seed: int = field(default=0, check=count(0))

    def problems(self) -> Iterable[Issue]:
        """Yield what is wrong with the noise levels together."""
        if not self.sigmas:
            yield Issue("sigmas", "must not be empty", "leave it out for four levels")
        if any(after <= before for before, after in pairwise(self.sigmas)):
            yield Issue("sigmas", f"must rise, got {self.sigmas!r}")

    @property
    def bands(self) -> tuple[tuple[float, float], ...]:
        """What each level stands for: half-way to its neighbours, and as far outwards at the ends."""
        levels = self.sigmas
        if len(levels) == 1:
            return ((0.0, 1.0),)
        inner = [(low + high) / 2 for low, high in pairwise(levels)]
        edges = [max(0.0, 2 * levels[0] - inner[0]), *inner, min(1.0, 2 * levels[-1] - inner[-1])]
        return tuple(pairwise(edges))


@attrs.frozen(kw_only=True)
class Best:
    """The lowest validation loss of a run so far, and the step that it was measured after."""

    loss: float
    step: int

    @classmethod
    def of(cls, past: Iterable[Validated]) -> Best | None:
        """Return the best of all measurements, the earliest of equals; None if none is finite."""
        finite = [cls(loss=one.loss, step=one.step) for one in past if math.isfinite(one.loss)]
        return min(finite, key=lambda best: (best.loss, best.step), default=None)
