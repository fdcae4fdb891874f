"""Schedules of several stages: a plateau before the decay, and constant pieces."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Literal, Self

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import field, one_of, positive, share
from musubi.optim.schedules import Schedule, cosine, in_steps, raised, steps_or_share

_SHAPES = ("linear", "cosine", "1-sqrt")


@attrs.frozen(kw_only=True)
class WarmupStableDecay(Schedule):
    """Warm up, stay at the peak rate, and decay over the last ``decay`` steps (or share) to ``min_ratio`` of it.

    The warm-up starts at ``min_ratio``, too. A run can be continued from before its decay (Hu et al. 2024,
    https://arxiv.org/abs/2404.06395): resume that state with more steps.

    Example:
        >>> from musubi import WarmupStableDecay
        >>> [WarmupStableDecay(warmup=10, decay=0.2).factor(step, 100) for step in (5, 10, 79, 90)]
        [0.5, 1.0, 1.0, 0.5]
    """

    kind: ClassVar[str] = "warmup_stable_decay"

    decay: int | float = field(default=0.1, check=steps_or_share)
    min_ratio: float = field(default=0.0, check=share)
    shape: Literal["linear", "cosine", "1-sqrt"] = field(default="cosine", check=one_of(*_SHAPES))
    warmup_shape: Literal["linear", "cosine", "1-sqrt"] = field(default="linear", check=one_of(*_SHAPES))
    halves: float = field(default=1.0, check=positive)

    def factor(self, step: int, total: int) -> float:
        """Return the factor of the stage that the step is in."""
        warmup, decay = self.warmup_steps(total), in_steps(self.decay, total)
        if step < warmup:
            return raised(1.0 - _falling(self.warmup_shape, step / warmup, rising=True), self.min_ratio)
        if step < total - decay:
            return 1.0
        if step >= total:
            return self.min_ratio
        progress = (step - total + decay) / decay
        return raised(_falling(self.shape, progress, halves=self.halves), self.min_ratio)


def _falling(shape: str, progress: float, *, halves: float = 1.0, rising: bool = False) -> float:
    """Return the height of a shape from 1 to 0; the root is steep at its beginning, or at its end if it is to rise."""
    if shape == "linear":
        return 1.0 - progress
    if shape == "cosine":
        return cosine(halves * progress)
    return math.sqrt(1.0 - progress) if rising else 1.0 - math.sqrt(progress)


@attrs.frozen(kw_only=True)
class PiecewiseConstant(Schedule):
    """Keep one factor after the other: ``pieces`` are (factor, where it ends), then ``last`` holds.

    Ends are all numbers of steps (whole) or all shares of the run (with a decimal point).

    Example:
        >>> from musubi import PiecewiseConstant
        >>> PiecewiseConstant(pieces=((1.0, 10), (0.1, 50)), last=0.01).factor(10, 100)
        0.1
        >>> PiecewiseConstant.parse("1:10,0.1:50,0.01").factor(50, 100)
        0.01
    """

    kind: ClassVar[str] = "piecewise_constant"

    pieces: tuple[tuple[float, int | float], ...]
    last: float = field(check=positive)

    @classmethod
    def parse(cls, rules: str) -> Self:
        """Return the schedule of the reference's ``step_rules``: ``factor:step,factor:step,factor``.

        Raises:
            ConfigError: The text is not of that form.
        """
        *before, last = rules.split(",")
        try:
            ends = {int(end): float(factor) for factor, end in (rule.split(":") for rule in before)}
            pieces = tuple((factor, end) for end, factor in sorted(ends.items()))
            return cls(pieces=pieces, last=float(last))
        except ValueError as error:
            hint = "write, for example, 1:10,0.1:50,0.01"
            raise ConfigError(cls.__name__, [Issue("rules", f"cannot be read: {rules!r}", hint)]) from error

    def problems(self) -> Iterable[Issue]:
        """Yield an issue for ends that do not follow one another, and for a warm-up, which is a piece, too."""
        ends = [end for _, end in self.pieces]
        if ends != sorted(set(ends)) or len({type(end) for end in ends}) > 1:
            yield Issue("pieces", f"must end at later and later steps, or shares of the run, got {ends}")
        if any(problem := [p for p in map(steps_or_share, ends) if p is not None]):
            yield Issue("pieces", f"an end {problem[0]}")
        if any(factor < 0 for factor, _ in self.pieces):
            yield Issue("pieces", "a factor must not be below 0")
        if self.warmup:
            yield Issue("warmup", "has no place before pieces", "begin with smaller ones")

    def factor(self, step: int, total: int) -> float:
        """Return the factor of the first piece that has not ended."""
        return next((factor for factor, end in self.pieces if step < in_steps(end, total)), self.last)
