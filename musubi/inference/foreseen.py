"""What a denoiser is asked with, for tensors that have shapes and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from musubi.batch import collate

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from musubi.architecture import Denoiser


@attrs.frozen(kw_only=True)
class Shape:
    """A tensor of a cached entry: its sizes and its type."""

    sizes: tuple[int, ...]
    dtype: torch.dtype


def prediction(
    denoiser: Denoiser[Any], entry: Mapping[str, Shape], *, items: int, dtype: torch.dtype
) -> Callable[[nn.Module], Tensor]:
    """Return what asks a model for the velocity of ``items`` equal entries, under fake tensors, as a step does."""
    import torch

    def predict(model: nn.Module) -> Tensor:
        tensors = {name: torch.empty(shape.sizes, dtype=shape.dtype) for name, shape in entry.items()}
        batch = collate([tensors] * items, items=[str(index) for index in range(items)], bucket="")
        clean = denoiser.clean(batch).float()
        noise, x = torch.empty_like(clean), torch.empty_like(clean)
        target = noise - clean
        conditions = denoiser.conditions(batch)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            predicted = denoiser.velocity(model, x, torch.empty(items), conditions).float()
        return predicted - target

    return predict
