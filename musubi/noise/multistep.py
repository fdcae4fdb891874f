"""What multistep samplers share: estimates of the data along the way, and the exact step for a constant one.

alpha = 1 - sigma, lambda = log(alpha / sigma), h = the growth of lambda in a step (Lu et al. 2022, "DPM-Solver++").
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen
class Estimate:
    """The data as estimated at a noise level."""

    sigma: float
    clean: Tensor

    @property
    def position(self) -> float:
        """Half the logarithm of the signal-to-noise ratio: the papers' lambda."""
        return position(self.sigma)


def position(sigma: float) -> float:
    """Return lambda of a noise level: infinite at 0, and minus infinite at 1."""
    if sigma == 0:
        return math.inf
    return -math.inf if sigma == 1 else math.log(1 - sigma) - math.log(sigma)


def first_order(x: Tensor, last: Estimate, sigma: float) -> tuple[Tensor, float, float]:
    """Return the first-order step to ``sigma``, its ``alpha (e^-h - 1)`` and ``-h``."""
    negative_h = last.position - position(sigma)
    growth = math.expm1(negative_h)
    return sigma / last.sigma * x - (1 - sigma) * growth * last.clean, (1 - sigma) * growth, negative_h


def whole_thousandths(sigma: float) -> float:
    """Return ``sigma`` cut to thousandths; float32's own rounding does not push it to the one below."""
    return math.floor(1000 * sigma + 5e-5) / 1000
