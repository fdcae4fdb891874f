"""Further schedules that follow one curve: with restarts, a power, a root, and REX."""

from __future__ import annotations

import math
from typing import ClassVar

import attrs

from musubi.core.fields import count, field, optional, positive, share
from musubi.optim.schedules import Curve, Schedule, cosine, raised


@attrs.frozen(kw_only=True)
class CosineRestarts(Curve):
    """Fall along half a cosine ``cycles`` times, each time from the peak rate again (Loshchilov & Hutter 2017).

    Example:
        >>> from musubi import CosineRestarts
        >>> CosineRestarts(cycles=2).factor(50, 100)
        1.0
    """

    kind: ClassVar[str] = "cosine_restarts"

    cycles: int = field(default=2, check=count())
    min_ratio: float = field(default=0.0, check=share)

    def after_warmup(self, progress: float) -> float:
        """Return the half cosine of the cycle under way."""
        if progress >= 1:
            return self.min_ratio
        return raised(cosine((self.cycles * progress) % 1.0), self.min_ratio)


@attrs.frozen(kw_only=True)
class Polynomial(Curve):
    """Fall as ``(1 - progress) ** power`` to ``min_ratio`` of the peak rate (the reference ends at a rate of 1e-7).

    Example:
        >>> from musubi import Polynomial
        >>> Polynomial(power=2).factor(50, 100)
        0.25
    """

    kind: ClassVar[str] = "polynomial"

    power: float = field(default=1.0, check=positive)
    min_ratio: float = field(default=0.0, check=share)

    def after_warmup(self, progress: float) -> float:
        """Return the power, raised to end at ``min_ratio``."""
        return raised(max(0.0, 1.0 - progress) ** self.power, self.min_ratio)


@attrs.frozen(kw_only=True)
class InverseSqrt(Schedule):
    """Fall with the root of the steps towards ``min_ratio`` of the peak rate, however long the run is.

    The fall is ``1 / sqrt(1 + (step - warmup) / timescale)``; a ``timescale`` of None is the warm-up, or 10000 without
    one. Source: https://github.com/google-research/big_vision, by way of ``transformers``.

    Example:
        >>> from musubi import InverseSqrt
        >>> InverseSqrt(timescale=10).factor(30, 100)
        0.5
    """

    kind: ClassVar[str] = "inverse_sqrt"

    timescale: int | None = field(default=None, check=optional(count()))
    min_ratio: float = field(default=0.0, check=share)

    def factor(self, step: int, total: int) -> float:
        """Return the share of the warm-up done, then the inverse root."""
        warmup = self.warmup_steps(total)
        if step < warmup:
            return step / warmup
        scale = self.timescale or warmup or 10_000
        return raised(1.0 / math.sqrt((step - warmup + scale) / scale), self.min_ratio)


@attrs.frozen(kw_only=True)
class Rex(Schedule):
    """Fall slowly first and steeply last: ``z / (alpha + beta z)`` with ``z`` the rest of the run (Chen et al. 2022).

    It begins at ``1 / (alpha + beta)`` of the peak rate, so let them add up to 1. It ends at ``min_ratio`` of it, and
    so does a warm-up begin, whose first two steps stay there. (The
    reference's very first step uses half the peak rate or more if there is a warm-up, a mistake.)
    Source: https://arxiv.org/abs/2107.04197.

    Example:
        >>> from musubi import Rex
        >>> Rex(alpha=0.5, beta=0.5, min_ratio=0.0).factor(50, 100)
        0.6666666666666666
    """

    kind: ClassVar[str] = "rex"

    min_ratio: float = field(default=0.01, check=share)
    alpha: float = field(default=0.1, check=positive)
    beta: float = field(default=0.9, check=positive)

    def factor(self, step: int, total: int) -> float:
        """Return the factor of the warm-up, which its second step begins, or of the fall."""
        warmup = self.warmup_steps(total)
        if step < warmup or step == warmup == 1:
            return raised(max(0, step - 1) / max(1, warmup - 1), self.min_ratio)
        rest = (total - step) / max(1, total - warmup)
        if rest <= 0:
            return self.min_ratio
        return raised(rest / (self.alpha + self.beta * rest), self.min_ratio)
