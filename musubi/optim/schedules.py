"""Learning-rate schedules: a factor of the peak rate for every optimiser step, known without any state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.fields import field, positive, share
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


def steps_or_share(value: object) -> str | None:
    """Say what is wrong with a number of steps or a share of the run, None if nothing."""
    steps = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    part = isinstance(value, float) and 0 <= value < 1
    return None if steps or part else f"must be a number of steps, or a share from 0.0 to below 1.0, got {value!r}"


def in_steps(value: int | float, total: int) -> int:
    """Return a number of steps, or a share of ``total``, as steps."""
    return int(value * total) if isinstance(value, float) else value


def raised(factor: float, floor: float) -> float:
    """Return a factor from 0 to 1 as one from ``floor`` to 1."""
    return floor + (1.0 - floor) * factor


@attrs.frozen(kw_only=True)
class Schedule(Spec, ABC):
    """How the learning rate changes over a run.

    ``warmup`` is a number of optimiser steps (whole) or a share of the run (with a decimal point). During it the factor
    grows linearly from 0, which the first step uses, as in the reference and in ``transformers``.

    A factor follows from the step and the length of the run alone, so it is right after any resume, on any number of
    processes, and for the rest of a run whose length was changed.
    """

    family: ClassVar[str] = "schedule"

    warmup: int | float = field(default=0, check=steps_or_share)

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """Return the factor for the optimiser step ``step``, counted from 0, of ``total``.

        Steps are those of the run, on however many processes.
        """

    def warmup_steps(self, total: int) -> int:
        """Return how many steps of ``total`` the warm-up takes."""
        return in_steps(self.warmup, total)

    def build(self, optimizer: Optimizer, total: int) -> LambdaLR:
        """Return the schedule as torch's, for other training loops; step it once for each optimiser step."""
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, lambda step: self.factor(step, total))

    def plot(self, steps: int = 1000) -> Figure:
        """Draw the factor of every step of a run; the figure is shown as the last value of a notebook's cell.

        Raises:
            ConfigError: matplotlib is not installed.
        """
        from musubi.core.figures import new_figure

        figure = new_figure(8.0, 4.0)
        axes = figure.subplots()
        axes.plot(range(1, steps + 1), [self.factor(step, steps) for step in range(steps)], color="tab:orange")
        axes.set(xlabel="step", ylabel="factor of the learning rate", title=repr(self))
        axes.set_ylim(bottom=0)
        return figure


@attrs.frozen(kw_only=True)
class Curve(Schedule):
    """The root of the schedules that follow one curve from the end of the warm-up to the end of the run."""

    def factor(self, step: int, total: int) -> float:
        """Return the share of the warm-up done, then the curve's value."""
        warmup = self.warmup_steps(total)
        if step < warmup:
            return step / warmup
        return self.after_warmup((step - warmup) / max(1, total - warmup))

    @abstractmethod
    def after_warmup(self, progress: float) -> float:
        """Return the factor at ``progress`` of the steps after the warm-up, 0 to below 1."""


@attrs.frozen(kw_only=True)
class Constant(Curve):
    """Stay at the peak rate, after the warm-up if there is one.

    Example:
        >>> from musubi import Constant
        >>> Constant(warmup=4).factor(1, 100)
        0.25
    """

    kind: ClassVar[str] = "constant"

    def after_warmup(self, progress: float) -> float:
        """Return 1."""
        return 1.0


@attrs.frozen(kw_only=True)
class Linear(Curve):
    """Fall in a straight line to ``min_ratio`` of the peak rate.

    Example:
        >>> from musubi import Linear
        >>> Linear().factor(25, 100)
        0.75
    """

    kind: ClassVar[str] = "linear"

    min_ratio: float = field(default=0.0, check=share)

    def after_warmup(self, progress: float) -> float:
        """Return what is left of the run, raised to end at ``min_ratio``."""
        return raised(max(0.0, 1.0 - progress), self.min_ratio)


@attrs.frozen(kw_only=True)
class Cosine(Curve):
    """Fall along half a cosine to ``min_ratio`` of the peak rate (Loshchilov & Hutter 2017).

    With more ``halves`` the wave goes on: two come back to the peak, three fall again. In the reference these are the
    "num_cycles" of ``cosine_with_min_lr`` and ``warmup_stable_decay``; its plain ``cosine`` ignores them.

    Example:
        >>> from musubi import Cosine
        >>> Cosine(min_ratio=0.1).factor(50, 100)
        0.55
    """

    kind: ClassVar[str] = "cosine"

    min_ratio: float = field(default=0.0, check=share)
    halves: float = field(default=1.0, check=positive)

    def after_warmup(self, progress: float) -> float:
        """Return the cosine, raised to have its lowest points at ``min_ratio``."""
        return raised(cosine(self.halves * progress), self.min_ratio)


def cosine(halves: float) -> float:
    """Return the height, 0 to 1, after a number of half waves that begin at 1."""
    return 0.5 * (1.0 + math.cos(math.pi * halves))
