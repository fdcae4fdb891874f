"""Several distributions of noise levels as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import Issue
from musubi.core.fields import each, field, positive
from musubi.noise.timesteps import TimestepSampler, inverse

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True)
class Mixture(TimestepSampler):
    """Draw from one of several ``samplers``, each as often as its part of the ``weights`` says.

    The samplers keep their own limits, and those of the mixture apply to what they draw together. A share, stratified
    or not, is one of the mixture: 0.5 is the level that half of all draws lie below. So strata cover the samplers as
    evenly as the levels (the reference strata the levels only, and draws the sampler freely).

    Args:
        samplers: The distributions, without strata of their own.
        weights: A number above 0 for each sampler; only their ratios count.

    Example:
        >>> from musubi import LogitNormal, Mixture, ResolutionShift
        >>> mostly = ResolutionShift()  # for stability, with some draws at low noise, for details
        >>> Mixture(samplers=(mostly, LogitNormal(mean=-2.68, std=0.5)), weights=(0.95, 0.05)).parts
        (0.95, 0.05)
    """

    kind: ClassVar[str] = "mixture"
    samplers: tuple[TimestepSampler, ...]
    weights: tuple[float, ...] = field(check=each(positive))

    def problems(self) -> Iterable[Issue]:
        """Yield an issue for limits out of order, missing samplers or weights, and strata inside."""
        yield from super().problems()
        if not self.samplers:
            yield Issue("samplers", "must be one sampler at least, got none")
        if len(self.weights) != len(self.samplers):
            message = f"must be one for each sampler, got {len(self.weights)} for {len(self.samplers)}"
            yield Issue("weights", message)
        for i, sampler in enumerate(self.samplers):
            if sampler.strata is not None:
                yield Issue(f"samplers[{i}].strata", "has no effect inside a mixture", "give strata to the mixture")

    @property
    def parts(self) -> tuple[float, ...]:
        """The part of all draws, limits aside, that each sampler has; together 1."""
        whole = sum(self.weights)
        return tuple(weight / whole for weight in self.weights)

    def quantile(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return where the samplers' shares, weighted, add up to ``u``."""
        return inverse(lambda sigma: self.between(0.0, sigma, tokens=tokens), u, low=0, high=1)

    def between(self, start: float, sigma: Tensor, *, tokens: int) -> Tensor:
        """Return the sum of the samplers' shares between the levels, weighted."""
        pairs = zip(self.parts, self.samplers, strict=True)
        shares = [part * sampler.share(sigma, tokens=tokens, above=start) for part, sampler in pairs]
        return sum(shares[1:], start=shares[0])

    def inside(self, u: Tensor, *, tokens: int) -> Tensor:
        """Return where the share above ``low`` reaches ``u`` of that between the limits."""
        whole = self.between(self.low, u.new_tensor(self.high), tokens=tokens)

        def above_low(sigma: Tensor) -> Tensor:
            return self.between(self.low, sigma, tokens=tokens)

        return inverse(above_low, u * whole, low=self.low, high=self.high)
