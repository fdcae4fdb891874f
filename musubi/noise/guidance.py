"""Steering a generation: which predictions a step needs, and how they make one velocity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from musubi.core.errors import Issue
from musubi.core.fields import at_least, field, one_of, optional, share
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen
class Branch:
    """One question to the network: under which prompt, and which of its blocks it passes by (counted from 0)."""

    prompt: Literal["positive", "negative"] = "positive"
    without: tuple[int, ...] = ()


POSITIVE, NEGATIVE = Branch("positive"), Branch("negative")


@attrs.frozen(kw_only=True)
class Step:
    """Where a generation is: step ``index`` (from 0) of ``total``, at noise level ``sigma``, which is ``expert``'s."""

    index: int
    total: int
    sigma: float
    expert: str = "model"


@attrs.frozen(kw_only=True)
class Guidance(Spec, ABC):
    """A rule that asks the network once or more for every step and combines the answers."""

    family: ClassVar[str] = "guidance"

    @property
    @abstractmethod
    def uses_negative(self) -> bool:
        """Whether any step needs the negative prompt: if not, it is not even encoded."""

    @abstractmethod
    def branches(self, step: Step) -> tuple[Branch, ...]:
        """Return what this step asks the network, in the order of asking."""

    @abstractmethod
    def combine(self, step: Step, velocities: Mapping[Branch, Tensor]) -> Tensor:
        """Return the velocity to follow from the float32 answers of this step's branches."""

    @property
    def embedded(self) -> float | None:
        """The scale that a model is told which has guidance as an input; None where nothing is said of it."""
        return None

    def misfits(self, *, experts: Sequence[str], blocks: int | None) -> Iterable[Issue]:
        """Yield what does not fit a model of these experts, of ``blocks`` blocks each (None: not known yet)."""
        return ()


SkipMode = Literal["early", "middle", "late", "early_late", "alternate"]


@attrs.frozen(kw_only=True)
class ClassifierFree(Guidance):
    """Go ``scale`` times as far from the negative prompt's velocity as the prompt's does (Ho and Salimans 2022).

    At a ``scale`` of 1 the negative pass is left out: it would cost half the time and change nothing. ``skip`` names
    the steps that do without it at any scale: only a ``ratio`` of the steps, rounded down, is guided.

    Example:
        >>> half = ClassifierFree(scale=5.0, skip="late", ratio=0.5)
        >>> [half.applies(Step(index=i, total=4, sigma=0.5)) for i in range(4)]
        [True, True, False, False]
    """

    kind: ClassVar[str] = "classifier_free"
    scale: float = field(default=5.0, check=at_least(0))
    skip: SkipMode | None = field(
        default=None, check=optional(one_of("early", "middle", "late", "early_late", "alternate"))
    )
    ratio: float = field(default=1.0, check=share)

    def problems(self) -> Iterable[Issue]:
        """Yield a ratio without a word about which steps it leaves out."""
        if self.skip is None and self.ratio != 1.0:
            yield Issue("ratio", f"{self.ratio:g} of the steps, but which?", 'say it with skip, e.g. skip="late"')

    @property
    def uses_negative(self) -> bool:
        """Whether the scale differs from 1, and some steps may be guided."""
        return self.scale != 1.0 and self.ratio > 0

    def applies(self, step: Step) -> bool:
        """Tell whether this step is guided, be it by a scale of 1."""
        total, guided = step.total, int(step.total * self.ratio)
        match self.skip:
            case None:
                return True
            case "early":
                return step.index >= total - guided
            case "late":
                return step.index < guided
            case "early_late":
                first = (total - guided) // 2
                return first <= step.index < first + guided
            case "middle":
                skipped = total - guided
                return not guided // 2 <= step.index < guided // 2 + skipped
            case "alternate":
                return _alternating(step.index, self.ratio)

    def branches(self, step: Step) -> tuple[Branch, ...]:
        """Return both branches, or the positive one alone at a scale of 1 and at steps that are not guided."""
        return (POSITIVE, NEGATIVE) if self.uses_negative and self.applies(step) else (POSITIVE,)

    def combine(self, step: Step, velocities: Mapping[Branch, Tensor]) -> Tensor:
        """Return ``u + scale (c - u)``."""
        positive = velocities[POSITIVE]
        if NEGATIVE not in velocities:
            return positive
        return self.between(positive, velocities[NEGATIVE])

    def between(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Return what lies ``scale`` times as far from ``negative`` as ``positive`` does."""
        return negative + self.scale * (positive - negative)


def _alternating(index: int, ratio: float) -> bool:
    """Tell whether the sum of ``ratio`` over the steps passes a whole number at this one."""
    owed, due = 0.0, False
    for _ in range(index + 1):
        owed += ratio
        due = owed >= 1.0
        owed -= 1.0 if due else 0.0
    return due
