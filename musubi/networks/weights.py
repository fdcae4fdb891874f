"""The matrices of one adapted module, as files keep them."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class LoRAWeights:
    """``down`` (rank, in) and ``up`` (out, rank), or convolution kernels of such channels; ``alpha`` is a scalar."""

    down: Tensor
    up: Tensor
    alpha: Tensor

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.down.shape[0]

    @property
    def strength(self) -> float:
        """The factor of the delta, ``alpha / rank``."""
        return float(self.alpha) / self.rank

    @property
    def zero_effect(self) -> bool:
        """Whether the delta is zero."""
        return not (self.up.any() and self.down.any() and self.alpha.any())

    def delta(self) -> Tensor:
        """Return what is added to the base weight at strength 1, in float32 and the base weight's shape.

        A convolution's ``up`` must be 1x1; its ``down`` has the base's kernel.
        """
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return product.reshape(self.up.shape[0], *self.down.shape[1:]) * self.strength

    def scaled(self, weight: float) -> LoRAWeights:
        """Return the same delta times ``weight``; ``up`` carries the factor, since some loaders hang on alpha <= 0."""
        return attrs.evolve(self, up=(self.up.float() * weight).to(self.up.dtype))

    def folded(self) -> LoRAWeights:
        """Return the same delta with ``alpha`` = rank.

        The power of two nearest the square root of the strength goes into ``up`` without rounding, the rest into
        ``down``, so that neither becomes tiny.
        """
        if self.strength == 1:
            return self
        power = 2.0 ** (math.frexp(math.sqrt(abs(self.strength)))[1] - 1) if self.strength else 1.0
        return LoRAWeights(
            down=(self.down.float() * (self.strength / power)).to(self.down.dtype),
            up=(self.up.float() * power).to(self.up.dtype),
            alpha=torch.tensor(float(self.rank)),
        )

    def to(self, dtype: torch.dtype) -> LoRAWeights:
        """Return the matrices in another precision; alpha becomes float32, so that it is never rounded."""
        return LoRAWeights(self.down.to(dtype), self.up.to(dtype), self.alpha.to(torch.float32))
