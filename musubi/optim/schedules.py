"""Learning-rate schedules: a factor of the peak rate for every optimiser step, known without any state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.fields import field, share
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR


def _warmup(value: object) -> str | None:
    steps = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    part = isinstance(value, float) and 0 <= value < 1
    return None if steps or part else f"must be a number of steps, or a share from 0.0 to below 1.0, got {value!r}"


@attrs.frozen(kw_only=True)
class Schedule(Spec, ABC):
    """How the learning rate changes over a run.

    ``warmup`` is a number of optimiser steps (whole) or a share of the run (with a decimal point). During it the factor
    grows linearly from 0, which the first step uses, as in the reference and in ``transformers``.
    """

    family: ClassVar[str] = "schedule"

    warmup: int | float = field(default=0, check=_warmup)

    def factor(self, step: int, total: int) -> float:
        """Return the factor for the optimiser step ``step``, counted from 0, of ``total``.

        Steps are those of the run, on however many processes.
        """
        warmup = int(self.warmup * total) if isinstance(self.warmup, float) else self.warmup
        if step < warmup:
            return step / warmup
        return self.after_warmup((step - warmup) / max(1, total - warmup))

    @abstractmethod
    def after_warmup(self, progress: float) -> float:
        """Return the factor at ``progress`` of the steps after the warm-up, 0 to below 1."""

    def build(self, optimizer: Optimizer, total: int) -> LambdaLR:
        """Return the schedule as torch's, for other training loops; step it once for each optimiser step."""
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, lambda step: self.factor(step, total))


@attrs.frozen(kw_only=True)
class Constant(Schedule):
    """Stay at the peak rate."""

    kind: ClassVar[str] = "constant"

    def after_warmup(self, progress: float) -> float:
        """Return 1."""
        return 1.0


@attrs.frozen(kw_only=True)
class Linear(Schedule):
    """Fall in a straight line to 0."""

    kind: ClassVar[str] = "linear"

    def after_warmup(self, progress: float) -> float:
        """Return what is left of the run."""
        return max(0.0, 1.0 - progress)


@attrs.frozen(kw_only=True)
class Cosine(Schedule):
    """Fall along half a cosine to ``min_ratio`` of the peak rate (Loshchilov & Hutter 2017)."""

    kind: ClassVar[str] = "cosine"

    min_ratio: float = field(default=0.0, check=share)

    def after_warmup(self, progress: float) -> float:
        """Return the half cosine, raised to end at ``min_ratio``."""
        falling = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.min_ratio + (1.0 - self.min_ratio) * falling
