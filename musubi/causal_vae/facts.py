"""The sizes of a causal VAE, from the shapes of its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import attrs

from musubi.weights.naming import count_after

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

Shapes = Mapping[str, tuple[int, ...]]
"""Original name -> shape."""

LATENTS_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENTS_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
"""Mean and standard deviation of the 16 channels of latents, the same in all published models."""


@attrs.frozen(kw_only=True)
class VaeFacts:
    """The sizes of a VAE and the statistics of its latents, the published ones unless the file says otherwise."""

    in_channels: int = 3
    base_dim: int
    z_dim: int
    dim_mult: tuple[int, ...]
    num_res_blocks: int
    temporal_downsample: tuple[bool, ...]
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]

    @classmethod
    def of(cls, shapes: Shapes, *, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None) -> Self:
        """Read the sizes from the encoder's flat list of layers; ``mean`` and ``std`` are as the file says."""
        base_dim, in_channels = shapes["encoder.conv1.weight"][:2]
        stages: list[list[int]] = [[]]
        temporal: list[bool] = []
        for index in range(count_after(shapes, "encoder.downsamples.")):
            layer = f"encoder.downsamples.{index}"
            if f"{layer}.residual.2.weight" in shapes:
                stages[-1].append(shapes[f"{layer}.residual.2.weight"][0])
                continue
            stages.append([])
            temporal.append(f"{layer}.time_conv.weight" in shapes)
        return cls(
            in_channels=in_channels,
            base_dim=base_dim,
            z_dim=shapes["conv2.weight"][0],
            dim_mult=tuple(stage[0] // base_dim for stage in stages),
            num_res_blocks=len(stages[0]),
            temporal_downsample=tuple(temporal),
            latents_mean=mean or LATENTS_MEAN,
            latents_std=std or LATENTS_STD,
        )


@attrs.frozen(kw_only=True)
class Told:
    """Where a family's files tell the statistics of latents: under ``key`` in metadata, in a config of ``cls``."""

    key: str
    cls: str

    def mean(self, checkpoint: Checkpoint) -> tuple[float, ...] | None:
        """Return the means of the channels if the file, or a config beside it, tells them."""
        return self._numbers(checkpoint, "latents_mean")

    def std(self, checkpoint: Checkpoint) -> tuple[float, ...] | None:
        """Return the standard deviations of the channels if the file, or a config beside it, tells them."""
        return self._numbers(checkpoint, "latents_std")

    def _numbers(self, checkpoint: Checkpoint, name: str) -> tuple[float, ...] | None:
        told = checkpoint.metadata.get(f"{self.key}.{name}")
        config = checkpoint.config if checkpoint.config.get("_class_name") == self.cls else {}
        values = json.loads(told) if told is not None else config.get(name)
        return tuple(float(value) for value in values) if isinstance(values, list) else None
