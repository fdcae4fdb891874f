"""Latents of pictures to change, as batches of image models have them.

Shape suffixes: B batch, C channels, H and W latent height and width; the 1 stands for the one frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from musubi.batch import Batch

CONTROL = "latents_control"
"""What they are called, with ``_0``, ``_1`` and so on behind; musubi-tuner leaves out the number of a single one."""


def numbered(latents: Sequence[Tensor]) -> Mapping[str, Tensor]:
    """Return latents of several pictures by the names they have in batches."""
    return {f"{CONTROL}_{number}": one for number, one in enumerate(latents)}


def controls_of(batch: Batch) -> tuple[Tensor, ...]:
    """Return the latents (B, C, 1, H, W) of pictures to change, in their order; each has its own size."""
    if CONTROL in batch.stacked:
        return (framed(batch[CONTROL]),)
    count = sum(name.startswith(f"{CONTROL}_") for name in batch.stacked)
    return tuple(framed(batch[f"{CONTROL}_{number}"]) for number in range(count))


def framed(latents: Tensor) -> Tensor:
    """Return latents (B, C, 1, H, W), also of ones without a place for the frame, as musubi-tuner may have them."""
    return latents if latents.ndim == 5 else latents[:, :, None]
