"""How much each noise level counts in the loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.fields import field, positive
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
    """Let every noise level count the same.

    Example:
        >>> import torch
        >>> from musubi import NoWeighting
        >>> NoWeighting().weights(torch.tensor([0.1, 0.5]))
        tensor([1., 1.])
    """

    kind: ClassVar[str] = "none"

    def weights(self, sigma: Tensor) -> Tensor:
        """Return ones."""
        return sigma.float().new_ones(sigma.shape)


@attrs.frozen(kw_only=True)
class SigmaSqrt(Weighting):
    """Weigh by ``sigma ** -2``: nearly clean samples count most.

    Levels below ``floor`` count as if they were there; its default, the lowest level of a schedule of 1000 timesteps,
    keeps weights below a million.

    Example:
        >>> import torch
        >>> from musubi import SigmaSqrt
        >>> SigmaSqrt(floor=0.1).weights(torch.tensor([0.01, 0.1, 0.5]))
        tensor([100.0000, 100.0000,   4.0000])
    """

    kind: ClassVar[str] = "sigma_sqrt"
    floor: float = field(default=0.001, check=positive)

    def weights(self, sigma: Tensor) -> Tensor:
        """Return ``sigma ** -2``, the same for all levels below the floor."""
        return sigma.float().clamp_min(self.floor) ** -2.0


@attrs.frozen(kw_only=True)
class CosMap(Weighting):
    """Weigh by ``2 / (pi (1 - 2 s + 2 s^2))`` (Esser et al. 2024, section 3.1): the middle counts twice the ends.

    Example:
        >>> import torch
        >>> from musubi import CosMap
        >>> CosMap().weights(torch.tensor([0.0, 0.5, 1.0]))
        tensor([0.6366, 1.2732, 0.6366])
    """

    kind: ClassVar[str] = "cosmap"

    def weights(self, sigma: Tensor) -> Tensor:
        """Return the cosine map's density at each ``sigma``."""
        level = sigma.float()
        return 2 / (math.pi * (1 - 2 * level + 2 * level**2))
