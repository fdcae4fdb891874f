"""The straight path between data and noise, and the error of a predicted velocity on it.

``x = (1 - sigma) clean + sigma noise`` and ``velocity = noise - clean`` (Liu et al. 2022, Lipman et al. 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from musubi.noise.loss import MSE, Loss

_SQUARES = MSE()


def mix(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return the point of the path at ``sigma``, in float32; ``sigma`` has shape (batch,)."""
    level = _per_item(sigma, clean)
    return (1 - level) * clean.float() + level * noise.float()


def clean_estimate(x: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """Return the clean end of the path through ``x`` that a velocity points to, in float32."""
    return x.float() - _per_item(sigma, x) * velocity.float()


def error(
    predicted: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    loss: Loss = _SQUARES,
) -> Tensor:
    """Return the mean error of a batch as a float32 scalar, each item's own times its ``weight`` of shape (batch,).

    ``mask`` of shape (batch, frames, height, width), from 0 to 1, is what the errors of every cell are multiplied by;
    ``loss`` says how errors are measured and what their mean is taken over, by default the squares over all cells.
    """
    items = loss.per_item(predicted, target, mask=mask)
    return items.mean() if weight is None else (items * weight.to(items)).mean()


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels towards 1 for ``shift`` > 1: ``s u / (1 + (s - 1) u)`` (Esser et al. 2024, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def _per_item(sigma: Tensor, like: Tensor) -> Tensor:
    return sigma.to(device=like.device, dtype=torch.float32).reshape(-1, *[1] * (like.ndim - 1))
