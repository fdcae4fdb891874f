"""The stage that the cache runs itself: where the loss counts, brought to the size of the latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from musubi.architecture import Geometry, Stage
from musubi.batch import LOSS_MASK, Entry, Sample
from musubi.core.errors import DataError, Issue

if TYPE_CHECKING:
    from torch import Tensor

MASK = Stage(name="mask", components=(), reads=("mask",))


def encode_masks(samples: Sequence[Sample], *, geometry: Geometry, frames: int) -> list[Entry]:
    """Return ``loss_mask`` of each sample: float32 of shape (latent frames, height, width), from 0 to 1.

    Args:
        samples: With masks of shape (``frames``, height, width) or, for all frames, (1, height, width), uint8.
        geometry: How many pixels and frames a latent cell stands for.
        frames: How many frames the clips have; 1 for stills.

    Raises:
        DataError: A sample has no mask.
    """
    return [
        Entry(name=sample.name, tensors={LOSS_MASK: reduce_mask(_mask(sample), geometry=geometry, frames=frames)})
        for sample in samples
    ]


def reduce_mask(mask_FHW: Tensor, *, geometry: Geometry, frames: int) -> Tensor:
    """Return the mean of a mask over the pixels and frames of every latent cell, from 0 (black) to 1 (white).

    The first latent stands for the first frame alone, each further one for ``geometry.frame_step`` frames.
    """
    import torch

    _, latents, height, width = geometry.latent_shape((mask_FHW.shape[2], mask_FHW.shape[1]), frames)
    cells = torch.nn.functional.avg_pool2d(mask_FHW.float()[:, None] / 255, kernel_size=geometry.stride)[:, 0]
    if len(cells) == 1:
        return cells.expand(latents, height, width).clone()
    grouped = cells[1 : 1 + (latents - 1) * geometry.frame_step].unflatten(0, (latents - 1, geometry.frame_step))
    return torch.cat([cells[:1], grouped.mean(dim=1)])


def _mask(sample: Sample) -> Tensor:
    if sample.mask is None:
        raise DataError("nothing to encode", [Issue(sample.name, "has no mask")])
    return sample.mask
