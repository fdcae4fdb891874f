"""How much each noise level counts in the loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True)
class Weighting(Spec, ABC):
    """A weight of the loss for every noise level."""

    family: ClassVar[str] = "weighting"

    @abstractmethod
    def weights(self, sigma: Tensor) -> Tensor:
        """Return one float32 weight for each ``sigma``, both of shape (batch,)."""


@attrs.frozen(kw_only=True)
class NoWeighting(Weighting):
    """Let every noise level count the same."""

    kind: ClassVar[str] = "none"

    def weights(self, sigma: Tensor) -> Tensor:
        """Return ones."""
        return sigma.float().new_ones(sigma.shape)


@attrs.frozen(kw_only=True)
class SigmaSqrt(Weighting):
    """Weigh by ``sigma ** -2``: nearly clean samples count most, without bound towards 0."""

    kind: ClassVar[str] = "sigma_sqrt"

    def weights(self, sigma: Tensor) -> Tensor:
        """Return ``sigma ** -2``."""
        return sigma.float() ** -2.0


@attrs.frozen(kw_only=True)
class CosMap(Weighting):
    """Weigh by ``2 / (pi (1 - 2 s + 2 s^2))`` (Esser et al. 2024, section 3.1): the middle counts twice the ends."""

    kind: ClassVar[str] = "cosmap"

    def weights(self, sigma: Tensor) -> Tensor:
        """Return the cosine map's density at each ``sigma``."""
        level = sigma.float()
        return 2 / (math.pi * (1 - 2 * level + 2 * level**2))
