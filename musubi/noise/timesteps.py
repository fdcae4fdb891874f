"""How training draws noise levels: distributions on (0, 1), each known by its quantile function."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import Issue
from musubi.core.fields import field, positive, share
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch import Generator, Tensor

_TINY = 2.0**-24
"""The distance of float32's last number below 1 from 1: noise levels keep it from both ends."""


@attrs.frozen(kw_only=True)
class TimestepSampler(Spec, ABC):
    """A distribution of noise levels, kept between ``low`` and ``high``.

    With ``preserve_shape`` the part of the distribution inside the limits is drawn from; without it the whole
    distribution is squeezed between them.
    """

    family: ClassVar[str] = "timesteps"
    low: float = field(default=0.0, check=share)
    high: float = field(default=1.0, check=share)
    preserve_shape: bool = False

    def problems(self) -> Iterable[Issue]:
        """Yield an issue if the limits are not in order."""
        if self.low >= self.high:
            yield Issue("low", f"must be below high, got {self.low:g} and {self.high:g}")

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        """Draw ``count`` noise levels, float32 of shape (count,), for latents of ``tokens`` tokens.

        ``generator`` lives on the CPU, and so does what is returned.
        """
        import torch

        return self.place(torch.rand(count, generator=generator, dtype=torch.float64), tokens=tokens)

    def place(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return the noise levels (float32) at the shares ``u`` in [0, 1] of this distribution inside its limits."""
        u = u.double()
        if self.preserve_shape:
            sigma = self.inside(u, tokens=tokens).clamp(self.low, self.high)
        else:
            sigma = self.low + self.quantile(u, tokens=tokens) * (self.high - self.low)
        return sigma.clamp(_TINY, 1 - _TINY).float()

    @abstractmethod
    def quantile(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return the noise levels, without limits, below which the shares ``u`` (float64) of all draws lie."""

    @abstractmethod
    def inside(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return the noise levels at the shares ``u`` (float64) of the draws that fall between ``low`` and ``high``."""


@attrs.frozen(kw_only=True)
class Uniform(TimestepSampler):
    """Draw every noise level equally often."""

    kind: ClassVar[str] = "uniform"

    def quantile(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return ``u`` itself."""
        return u

    def inside(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return ``u`` between the limits."""
        return self.low + u * (self.high - self.low)


@attrs.frozen(kw_only=True)
class Bell(TimestepSampler):
    """The root of the distributions whose logit is normal."""

    @abstractmethod
    def logit(self, tokens: int) -> tuple[float, float]:
        """Return the mean and the standard deviation of the noise level's logit for latents of ``tokens`` tokens."""

    def from_normal(self, z: Tensor, *, tokens: int) -> Tensor:
        """Return the noise levels that standard normal draws stand for, before the limits."""
        mean, std = self.logit(tokens)
        return (mean + std * z).sigmoid()

    def quantile(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return the sigmoid of the normal quantile."""
        import torch

        return self.from_normal(torch.special.ndtri(u), tokens=tokens)

    def inside(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return the sigmoid of the normal distribution cut at both limits, exact however far out they lie."""
        import torch

        low, high = (self._normal(level, tokens) for level in (self.low, self.high))
        if low + high > 0:  # near 1 shares have few digits left: take the tail from its other side
            start, stop = _normal_share(-high), _normal_share(-low)
            return self.from_normal(-torch.special.ndtri(stop + u * (start - stop)), tokens=tokens)
        start, stop = _normal_share(low), _normal_share(high)
        return self.from_normal(torch.special.ndtri(start + u * (stop - start)), tokens=tokens)

    def _normal(self, sigma: float, tokens: int) -> float:
        if sigma in {0, 1}:
            return math.inf if sigma else -math.inf
        mean, std = self.logit(tokens)
        return (math.log(sigma / (1 - sigma)) - mean) / std


def _normal_share(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


@attrs.frozen(kw_only=True)
class Sigmoid(Bell):
    """Draw ``sigmoid(scale z)`` with normal z: most levels in the middle, more at the ends for larger ``scale``."""

    kind: ClassVar[str] = "sigmoid"
    scale: float = field(default=1.0, check=positive)

    def logit(self, tokens: int) -> tuple[float, float]:
        """Return 0 and ``scale``."""
        return 0.0, self.scale


@attrs.frozen(kw_only=True)
class Shift(Bell):
    """Draw ``sigmoid(scale z)`` moved towards 1 as sampling with this ``shift`` moves it; the median is s / (1 + s)."""

    kind: ClassVar[str] = "shift"
    shift: float = field(default=3.0, check=positive)
    scale: float = field(default=1.0, check=positive)

    def logit(self, tokens: int) -> tuple[float, float]:
        """Return ln ``shift`` and ``scale``: shifting a noise level adds ln s to its logit."""
        return math.log(self.shift), self.scale


@attrs.frozen(kw_only=True)
class LogitNormal(Bell):
    """Draw noise levels whose logit is normal (Esser et al. 2024, eq. 19); a higher ``mean`` means more noise."""

    kind: ClassVar[str] = "logit_normal"
    mean: float = 0.0
    std: float = field(default=1.0, check=positive)

    def logit(self, tokens: int) -> tuple[float, float]:
        """Return ``mean`` and ``std``."""
        return self.mean, self.std
