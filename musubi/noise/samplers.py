"""Integrating the velocity from noise to data: schedules of noise levels and the steps between them.

A sampler knows a model only as ``velocity(x, sigma)`` with float32 ``x`` of shape (batch, ...) and ``sigma`` of shape
(batch,). The state is float32 on the latents' device, the coefficients are double on the host.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from musubi.core.fields import field, one_of, optional, positive
from musubi.core.spec import Spec
from musubi.noise.multistep import Estimate, first_order, whole_thousandths

if TYPE_CHECKING:
    from torch import Tensor

Velocity = Callable[["Tensor", "Tensor"], "Tensor"]
"""Returns the predicted ``noise - clean`` at (x, sigma)."""

OnStep = Callable[[int, "Tensor"], None]
"""Hears after every step how many are done, and the latents."""


@attrs.frozen(kw_only=True)
class Sampler(Spec, ABC):
    """A way from noise to data in a number of steps; ``shift`` > 1 spends more of them at high noise."""

    family: ClassVar[str] = "sampler"
    shift: float = field(default=1.0, check=positive)

    def sigmas(self, steps: int, *, tokens: int) -> Tensor:
        """Return the noise levels of ``steps`` steps for latents of ``tokens`` tokens: float32, descending, then 0."""
        import torch

        from musubi.noise.flow import shifted

        return shifted(torch.linspace(self.start, 0.0, steps + 1, dtype=torch.float64), self.shift).float()

    @property
    def start(self) -> float:
        """The first noise level before shifting."""
        return 1.0

    def told(self, sigma: float) -> float:
        """Return the noise level that the model is told for a step at ``sigma``."""
        return sigma

    @abstractmethod
    def sample(self, velocity: Velocity, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
        """Return the latents at the last of ``sigmas``, from ``x`` at the first; one model call a step."""

    def _ask(self, velocity: Velocity, x: Tensor, sigma: float) -> Tensor:
        return velocity(x, x.new_full((x.shape[0],), self.told(sigma))).float()


def _inside(value: object) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1
    return None if good else f"must be a number between 0 and 1, got {value!r}"


@attrs.frozen(kw_only=True)
class Euler(Sampler):
    """Follow the velocity in straight steps (the reference's "vanilla" and "discrete").

    ``terminal`` is the last noise level before 0, to which the others are stretched: 0.02 in Qwen-Image's schedule.
    """

    kind: ClassVar[str] = "euler"
    terminal: float | None = field(default=None, check=optional(_inside))

    def sigmas(self, steps: int, *, tokens: int) -> Tensor:
        """Return the noise levels, of two steps and more stretched so that the last one before 0 is ``terminal``."""
        levels = super().sigmas(steps, tokens=tokens)
        if self.terminal is not None and steps > 1:
            exact = levels.double()
            levels[:-1] = 1 - (1 - exact[:-1]) * ((1 - self.terminal) / (1 - exact[-2]))
        return levels

    def sample(self, velocity: Velocity, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
        """Return ``x + (sigma' - sigma) velocity``, applied from each noise level to the next."""
        x, levels = x.float(), sigmas.tolist()
        for i, (sigma, following) in enumerate(pairwise(levels)):
            x = x + (following - sigma) * self._ask(velocity, x, sigma)
            if on_step is not None:
                on_step(i + 1, x)
        return x


@attrs.frozen(kw_only=True)
class UniPC(Sampler):
    """Predict and correct from the last two estimates of the data (Zhao et al. 2023; B(h) = e^h - 1, "bh2").

    The noise levels start at 0.999 before shifting, and the model is told whole thousandths of noise, as Wan's own
    sampler and diffusers' ``UniPCMultistepScheduler`` do it.
    """

    kind: ClassVar[str] = "unipc"
    order: Literal[1, 2] = field(default=2, check=one_of(1, 2))

    @property
    def start(self) -> float:
        """The first noise level before shifting: the float32 number 0.999, the highest of 1000 training levels."""
        return _FIRST

    def told(self, sigma: float) -> float:
        """Return ``sigma`` cut to thousandths."""
        return whole_thousandths(sigma)

    def sample(self, velocity: Velocity, x: Tensor, sigmas: Tensor, on_step: OnStep | None = None) -> Tensor:
        """Return the latents at the last noise level; the last step has order 1 (lambda is infinite at 0)."""
        x, levels = x.float(), sigmas.tolist()
        steps = len(levels) - 1
        known: list[Estimate] = []
        previous, order = x, 0
        for i, sigma in enumerate(levels[:-1]):
            clean = x - sigma * self._ask(velocity, x, sigma)
            if known:
                x = _correct(previous, known[-order:], Estimate(sigma, clean))
            known = [*known[-1:], Estimate(sigma, clean)]
            previous, order = x, min(self.order, steps - i, len(known))
            x = _predict(x, known[-order:], levels[i + 1])
            if on_step is not None:
                on_step(i + 1, x)
        return x


_FIRST = 0.9990000128746033


def _predict(x: Tensor, known: list[Estimate], sigma: float) -> Tensor:
    last = known[-1]
    base, scale, negative_h = first_order(x, last, sigma)
    if len(known) == 1:
        return base
    ratio = (known[-2].position - last.position) / -negative_h
    return base - 0.5 * scale / ratio * (known[-2].clean - last.clean)


def _correct(x: Tensor, known: list[Estimate], reached: Estimate) -> Tensor:
    """Redo the step that led to ``reached`` from ``x``, now that the data estimate at its end is known."""
    last = known[-1]
    base, scale, negative_h = first_order(x, last, reached.sigma)
    change = reached.clean - last.clean
    if len(known) == 1:
        return base - 0.5 * scale * change
    ratio = (known[-2].position - last.position) / -negative_h
    older, newer = _weights(ratio, negative_h)
    return base - scale * (older / ratio * (known[-2].clean - last.clean) + newer * change)


def _weights(ratio: float, negative_h: float) -> tuple[float, float]:
    """Solve ``a + b = g1 / B``, ``ratio a + b = 2 g2 / B`` with the phi functions' ``g`` (the paper's eq. 12)."""
    growth = math.expm1(negative_h)
    first = growth / negative_h - 1
    second = first / negative_h - 0.5
    older = (first / growth - 2 * second / growth) / (1 - ratio)
    return older, first / growth - older
