"""Guidance of models with two experts: a rule for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import Issue
from musubi.core.fields import accepting
from musubi.noise.guidance import Branch, ClassifierFree, Guidance, Step

if TYPE_CHECKING:
    from torch import Tensor


def _rule(value: float | Guidance) -> Guidance:
    return ClassifierFree(scale=value) if isinstance(value, int | float) else value


@attrs.frozen(kw_only=True)
class PerExpert(Guidance):
    """Guide the expert for high noise levels by one rule and the one for low levels by another; a number is a scale.

    Both rules are told steps of the whole generation: half of the steps is half of all, not of an expert's.

    Example:
        >>> PerExpert(high=4.0, low=3.0).high
        ClassifierFree(scale=4.0, skip=None, ratio=1.0)
    """

    kind: ClassVar[str] = "per_expert"
    high: Guidance = attrs.field(converter=_rule, metadata=accepting(float | Guidance))
    low: Guidance = attrs.field(converter=_rule, metadata=accepting(float | Guidance))

    def problems(self) -> Iterable[Issue]:
        """Yield rules for each expert that tell experts apart once more."""
        for name, rule in self._rules.items():
            if isinstance(rule, PerExpert):
                yield Issue(name, "is a PerExpert itself", "give the rule for this expert")

    def misfits(self, *, experts: Sequence[str], blocks: int | None) -> Iterable[Issue]:
        """Yield a model without such experts, and what the rules do not fit."""
        if not set(experts) <= set(self._rules):
            yield Issue("", "this model has no experts for high and low noise levels", "give one rule or a number")
        for name, rule in self._rules.items():
            for issue in rule.misfits(experts=experts, blocks=blocks):
                yield attrs.evolve(issue, path=f"{name}.{issue.path}")

    @property
    def uses_negative(self) -> bool:
        """Whether one of the rules does."""
        return any(rule.uses_negative for rule in self._rules.values())

    def branches(self, step: Step) -> tuple[Branch, ...]:
        """Return what the rule of the step's expert asks."""
        return self._rules[step.expert].branches(step)

    def combine(self, step: Step, velocities: Mapping[Branch, Tensor]) -> Tensor:
        """Return what the rule of the step's expert makes of the answers."""
        return self._rules[step.expert].combine(step, velocities)

    @property
    def _rules(self) -> Mapping[str, Guidance]:
        return {"high": self.high, "low": self.low}
