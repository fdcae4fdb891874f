"""DPM-Solver++: integrating from the last two estimates of the data, without a correction."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.noise.multistep import Estimate, first_order, whole_thousandths
from musubi.noise.samplers import OnStep, Sampler, Velocity

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True)
class DPMPlusPlus(Sampler):
    """Extrapolate from the last two estimates of the data (DPM-Solver++ 2M, Lu et al. 2022; midpoint).

    The model is told whole thousandths of noise, as by Wan's own sampler. The first step and the last have order 1:
    there is no earlier estimate, and lambda is infinite at a noise level of 0.

    Example:
        >>> DPMPlusPlus(shift=5.0).told(0.9375)
        0.937
    """

    kind: ClassVar[str] = "dpm++"

    def told(self, sigma: float) -> float:
        """Return ``sigma`` cut to thousandths."""
        return whole_thousandths(sigma)

    def sample(self, velocity: Velocity, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
        """Return the latents at the last noise level."""
        x, levels = x.float(), sigmas.tolist()
        before: Estimate | None = None
        for i, (sigma, following) in enumerate(pairwise(levels)):
            reached = Estimate(sigma, x - sigma * self._ask(velocity, x, sigma))
            x = _step(x, before, reached, following)
            before = reached
            if on_step is not None:
                on_step(i + 1, x)
        return x


def _step(x: Tensor, before: Estimate | None, last: Estimate, sigma: float) -> Tensor:
    base, scale, negative_h = first_order(x, last, sigma)
    if before is None or sigma == 0 or math.isinf(before.position):
        return base
    ratio = (last.position - before.position) / -negative_h
    return base - 0.5 * scale / ratio * (last.clean - before.clean)
