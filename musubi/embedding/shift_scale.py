"""The last modulation with rows in the authors' order, which diffusers turns round."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers.models.normalization import AdaLayerNormContinuous
from torch import Tensor

from musubi.architecture import WeightHook


class ShiftScaleNorm(AdaLayerNormContinuous):
    """The last normalisation with rows in the original's order, shift before scale; diffusers has scale first.

    So base weights, adapters and merges are under their original names in every respect.
    """

    def forward(self, x: Tensor, conditioning_embedding: Tensor) -> Tensor:
        """Return ``norm(x) (1 + scale) + shift`` of shape (B, S, D)."""
        shift, scale = self.linear(self.silu(conditioning_embedding).to(x.dtype)).chunk(2, dim=1)
        modulated: Tensor = self.norm(x) * (1 + scale)[:, None] + shift[:, None]
        return modulated


def shift_first(on_weight: WeightHook | None, *, module: str) -> WeightHook:
    """Return a hook for files in diffusers' layout, which puts the shift of ``module`` (original name) first.

    ``on_weight`` then sees every tensor as it is in the original.
    """

    def hook(name: str, tensor: Tensor) -> Tensor | Mapping[str, Tensor]:
        ordered = torch.cat(tensor.chunk(2)[::-1]) if name.startswith(f"{module}.") else tensor
        return ordered if on_weight is None else on_weight(name, ordered)

    return hook
