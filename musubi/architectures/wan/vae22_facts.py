"""The sizes of the Wan 2.2 VAE, from a checkpoint's shapes; what shapes cannot tell, from its metadata or config."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Self

import attrs

from musubi.architectures.wan.detect import Description
from musubi.architectures.wan.facts import TOLD
from musubi.weights.naming import count_after

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

LATENTS_MEAN_22 = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557),
    *(-0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825),
    *(-0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230),
    *(-0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748),
    *(0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
LATENTS_STD_22 = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013),
    *(0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978),
    *(0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093),
    *(0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887),
    *(0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)
"""Mean and standard deviation of the 48 channels of Wan 2.2's latents, as its authors publish them."""


@attrs.frozen(kw_only=True)
class Vae22Facts:
    """The sizes of a Wan 2.2 VAE and the statistics of its latents, the published ones unless the file says otherwise.

    The outermost layers see squares of ``patch`` pixels as channels.
    """

    base_dim: int
    decoder_dim: int
    z_dim: int
    dim_mult: tuple[int, ...]
    num_res_blocks: int
    temporal_downsample: tuple[bool, ...]
    channels: int
    patch: int
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint, found: Description) -> Self:
        """Read the sizes from the encoder's stages."""
        shapes = found.shapes
        base_dim, channels = shapes["encoder.conv1.weight"][:2]
        stages = count_after(shapes, "encoder.downsamples.")
        first = [name for name in shapes if name.startswith("encoder.downsamples.0.")]
        blocks = sum(name.endswith(".residual.2.weight") for name in first)
        last = [f"encoder.downsamples.{stage}.downsamples.{blocks}" for stage in range(stages - 1)]
        widths = [shapes[f"encoder.downsamples.{stage}.downsamples.0.residual.2.weight"][0] for stage in range(stages)]
        return cls(
            base_dim=base_dim,
            decoder_dim=shapes["decoder.head.0.gamma"][0],
            z_dim=shapes["conv2.weight"][0],
            dim_mult=tuple(width // base_dim for width in widths),
            num_res_blocks=blocks,
            temporal_downsample=tuple(f"{name}.time_conv.weight" in shapes for name in last),
            channels=channels,
            patch=isqrt(channels // 3),
            latents_mean=TOLD.mean(checkpoint) or LATENTS_MEAN_22,
            latents_std=TOLD.std(checkpoint) or LATENTS_STD_22,
        )
