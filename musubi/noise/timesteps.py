"""How training draws noise levels: distributions on (0, 1), each known by its quantile function."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count, field, optional, positive, share
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch import Generator, Tensor

_TINY = 2.0**-24
"""The distance of float32's last number below 1 from 1: noise levels keep it from both ends."""

_HALVINGS = 50
"""An interval of 1, halved so often, is finer than any float32 noise level that is kept."""


@attrs.frozen(kw_only=True)
class TimestepSampler(Spec, ABC):
    """A distribution of noise levels, kept between ``low`` and ``high``.

    A noise level is what ``x = (1 - sigma) clean + sigma noise`` calls sigma: 0 is the data, 1 is noise; where others
    count timesteps from 0 to 1000, it is a thousandth of theirs. Limits mean these values in every distribution.

    A subclass says where the shares of its draws lie (``quantile``); all else follows, and may be said more exactly.

    Args:
        low: The lowest level drawn.
        high: The highest level drawn.
        preserve_shape: Draw from the part of the distribution inside the limits, exactly as if all draws outside were
            thrown away; otherwise the whole distribution is squeezed between them.
        strata: The number of equal shares of the distribution that draws are spread over evenly; None draws freely.
    """

    family: ClassVar[str] = "timesteps"
    low: float = field(default=0.0, check=share)
    high: float = field(default=1.0, check=share)
    preserve_shape: bool = False
    strata: int | None = field(default=None, check=optional(count(2)))

    def problems(self) -> Iterable[Issue]:
        """Yield an issue if the limits are not in order."""
        if self.low >= self.high:
            yield Issue("low", f"must be below high, got {self.low:g} and {self.high:g}")

    def sample(self, count: int, *, tokens: int, generator: Generator) -> Tensor:
        """Draw ``count`` noise levels, float32 of shape (count,), for latents of ``tokens`` tokens.

        ``generator`` lives on the CPU, and so does what is returned. With ``strata`` these draws are spread evenly.
        """
        return self.place(self.shares(count, generator=generator), tokens=tokens)

    def shares(self, count: int, *, generator: Generator) -> Tensor:
        """Draw ``count`` shares in [0, 1) for ``place``, float64; with ``strata`` they are spread evenly and shuffled.

        Drawn for a whole epoch and handed out batch by batch, they cover the distribution once an epoch.
        """
        import torch

        from musubi.noise import strata

        if self.strata is None:
            return torch.rand(count, generator=generator, dtype=torch.float64)
        return strata.shares(count, self.strata, generator=generator)

    def place(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return the noise levels (float32) at the shares ``u`` in [0, 1] of this distribution inside its limits.

        Raises:
            ConfigError: ``preserve_shape`` is set, and nothing of the distribution lies inside the limits.
        """
        u = u.double()
        if self.preserve_shape:
            self._require_draws(u, tokens)
            sigma = self.inside(u, tokens=tokens).clamp(self.low, self.high)
        else:
            sigma = self.low + self.quantile(u, tokens=tokens) * (self.high - self.low)
        return sigma.clamp(_TINY, 1 - _TINY).float()

    def share(self, sigma: Tensor, *, tokens: int, above: float = 0.0) -> Tensor:
        """Return the share (float64) of the draws inside the limits between ``above`` and each noise level.

        From 0, the default, this is the cumulative distribution: the inverse of ``place``.
        """
        sigma = sigma.double()
        if self.preserve_shape:
            found = self.between(max(above, self.low), sigma.clamp(self.low, self.high), tokens=tokens)
            found = found / self.between(self.low, sigma.new_tensor(self.high), tokens=tokens)
        else:
            free = (sigma - self.low) / (self.high - self.low)
            start = min(max((above - self.low) / (self.high - self.low), 0.0), 1.0)
            found = self.between(start, free.clamp(0, 1), tokens=tokens)
        return found.clamp(0, 1)

    @abstractmethod
    def quantile(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return the noise levels, without limits, below which the shares ``u`` (float64) of all draws lie."""

    def between(self, start: float, sigma: Tensor, *, tokens: int) -> Tensor:
        """Return the share of all draws, without limits, that lie between ``start`` and each ``sigma`` (float64)."""

        def level(u: Tensor) -> Tensor:
            return self.quantile(u, tokens=tokens)

        below = inverse(level, sigma.new_tensor(start), low=0, high=1)
        return inverse(level, sigma, low=0, high=1) - below

    def inside(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return the noise levels at the shares ``u`` (float64) of the draws that fall between ``low`` and ``high``."""
        below = self.between(0.0, u.new_tensor(self.low), tokens=tokens)
        whole = self.between(self.low, u.new_tensor(self.high), tokens=tokens)
        return self.quantile(below + u * whole, tokens=tokens)

    def _require_draws(self, like: Tensor, tokens: int) -> None:
        if not self.between(self.low, like.new_tensor(self.high), tokens=tokens) > 0:
            where = f"no draw falls between low = {self.low:g} and high = {self.high:g} ({tokens:,} tokens)"
            hint = "widen the limits, or leave preserve_shape out to squeeze the distribution between them"
            raise ConfigError("no noise levels", [Issue("preserve_shape", where, hint)])


def inverse(rising: Callable[[Tensor], Tensor], values: Tensor, *, low: float, high: float) -> Tensor:
    """Return where a rising function reaches ``values`` (float64) between ``low`` and ``high``, by halving."""
    import torch

    start, stop = torch.full_like(values, low), torch.full_like(values, high)
    for _ in range(_HALVINGS):
        middle = (start + stop) / 2
        short = rising(middle) < values
        start, stop = torch.where(short, middle, start), torch.where(short, stop, middle)
    return (start + stop) / 2


@attrs.frozen(kw_only=True)
class Uniform(TimestepSampler):
    """Draw every noise level equally often, or, with a ``shift``, as often as sampling with that shift visits it.

    Example:
        >>> from musubi import Uniform
        >>> Uniform(low=0.9, high=1.0).kind
        'uniform'
    """

    kind: ClassVar[str] = "uniform"
    shift: float = field(default=1.0, check=positive)

    def quantile(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return ``u``, shifted."""
        from musubi.noise.flow import shifted

        return shifted(u, self.shift)

    def between(self, start: float, sigma: Tensor, *, tokens: int) -> Tensor:
        """Return the distance between the levels, shifted back."""
        from musubi.noise.flow import shifted

        return shifted(sigma, 1 / self.shift) - shifted(sigma.new_tensor(start), 1 / self.shift)


_STEEPEST = 2 / (math.pi - 2)


def _unfolded(value: object) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= _STEEPEST
    return None if good else f"must be a number from -1 to 2 / (pi - 2) = {_STEEPEST:.4f}, got {value!r}"


@attrs.frozen(kw_only=True)
class Mode(TimestepSampler):
    """Draw ``u + scale (u - sin^2(pi u / 2))`` with uniform u: heavy tails, and a peak in the middle (``scale`` > 0).

    A negative ``scale`` favours both ends instead, 0 is uniform. ``shift`` moves the levels as sampling does.
    Source: Esser et al. 2024, eq. 20, whose range of scales this is; theirs is the same map of 1 - u.

    Example:
        >>> from musubi import Mode
        >>> Mode(scale=1.29).scale
        1.29
    """

    kind: ClassVar[str] = "mode"
    scale: float = field(default=1.29, check=_unfolded)
    shift: float = field(default=1.0, check=positive)

    def quantile(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return the levels at ``u`` by the formula."""
        from musubi.noise.flow import shifted

        return shifted(u + self.scale * (u - (math.pi / 2 * u).sin().square()), self.shift)


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

    def between(self, start: float, sigma: Tensor, *, tokens: int) -> Tensor:
        """Return the normal distribution's share between the logits, exact however far out they lie."""
        import torch

        low, high = self._normal(sigma.new_tensor(start), tokens), self._normal(sigma, tokens)
        # near 1 shares have few digits left: take them from the other side
        return torch.where(low + high > 0, _below(-low) - _below(-high), _below(high) - _below(low))

    def inside(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return the sigmoid of the normal distribution cut at both limits, exact however far out they lie."""
        import torch

        low, high = (self._normal(u.new_tensor(level), tokens) for level in (self.low, self.high))
        sign = -1.0 if low + high > 0 else 1.0  # as above: the tail from its own side
        start, stop = _below(sign * low), _below(sign * high)
        return self.from_normal(sign * torch.special.ndtri(start + u * (stop - start)), tokens=tokens)

    def _normal(self, sigma: Tensor, tokens: int) -> Tensor:
        mean, std = self.logit(tokens)
        return (sigma.logit() - mean) / std


def _below(z: Tensor) -> Tensor:
    """Return the normal distribution's share below z; torch's own ndtr has no digits left in the tail."""
    return 0.5 * (z / -math.sqrt(2)).erfc()


@attrs.frozen(kw_only=True)
class Sigmoid(Bell):
    """Draw ``sigmoid(scale z)`` with normal z: most levels in the middle, more at the ends for larger ``scale``.

    Example:
        >>> from musubi import Sigmoid
        >>> Sigmoid(scale=1.4).logit(tokens=4096)
        (0.0, 1.4)
    """

    kind: ClassVar[str] = "sigmoid"
    scale: float = field(default=1.0, check=positive)

    def logit(self, tokens: int) -> tuple[float, float]:
        """Return 0 and ``scale``."""
        return 0.0, self.scale


@attrs.frozen(kw_only=True)
class Shift(Bell):
    """Draw ``sigmoid(scale z)`` moved towards 1 as sampling with this ``shift`` moves it; the median is s / (1 + s).

    Example:
        >>> import torch
        >>> from musubi import Shift
        >>> Shift(shift=3.0).place(torch.tensor([0.5]), tokens=4096)
        tensor([0.7500])
    """

    kind: ClassVar[str] = "shift"
    shift: float = field(default=3.0, check=positive)
    scale: float = field(default=1.0, check=positive)

    def logit(self, tokens: int) -> tuple[float, float]:
        """Return ln ``shift`` and ``scale``: shifting a noise level adds ln s to its logit."""
        return math.log(self.shift), self.scale


@attrs.frozen(kw_only=True)
class ResolutionShift(Bell):
    """Draw ``sigmoid(mu + scale z)``, mu rising with the number of tokens: large pictures need more noise.

    ``mu`` are its values at the two numbers of ``tokens``; the line through them goes on, without bounds, on both
    sides. It is the logarithm of a shift, and the one that models with such a rule use in sampling. Source: Esser et
    al. 2024, section 5.3.2, in the linear form of the FLUX.1 release.

    Example:
        >>> import torch
        >>> from musubi import ResolutionShift
        >>> sampler = ResolutionShift(tokens=(256, 4096), mu=(0.5, 1.15))
        >>> [sampler.place(torch.tensor([0.5]), tokens=n).item() for n in (1024, 4096)]
        [0.652..., 0.759...]
    """

    kind: ClassVar[str] = "resolution_shift"
    tokens: tuple[int, int] = (256, 4096)
    mu: tuple[float, float] = (0.5, 1.15)
    scale: float = field(default=1.0, check=positive)

    def problems(self) -> Iterable[Issue]:
        """Yield an issue if limits or tokens are not in order."""
        yield from super().problems()
        if not 0 < self.tokens[0] < self.tokens[1]:
            yield Issue("tokens", f"must be two rising numbers above 0, got {self.tokens}")

    def logit(self, tokens: int) -> tuple[float, float]:
        """Return mu at this number of tokens, and ``scale``."""
        slope = (self.mu[1] - self.mu[0]) / (self.tokens[1] - self.tokens[0])
        return self.mu[0] + slope * (tokens - self.tokens[0]), self.scale


@attrs.frozen(kw_only=True)
class LogitNormal(Bell):
    """Draw noise levels whose logit is normal (Esser et al. 2024, eq. 19); a higher ``mean`` means more noise.

    The logarithm of the signal-to-noise ratio is -2 times the logit. So a normal log(SNR) of mean m and deviation s
    (Choi et al. 2024, "Style-Friendly SNR Sampler") is ``LogitNormal(mean=-m / 2, std=s / 2)``.

    Example:
        >>> from musubi import LogitNormal
        >>> LogitNormal(mean=3.0, std=1.0).logit(tokens=4096)  # log(SNR) of mean -6 and deviation 2
        (3.0, 1.0)
    """

    kind: ClassVar[str] = "logit_normal"
    mean: float = 0.0
    std: float = field(default=1.0, check=positive)

    def logit(self, tokens: int) -> tuple[float, float]:
        """Return ``mean`` and ``std``."""
        return self.mean, self.std
