"""Time, guidance and pooled text as one vector, in float32 whatever the model's type is.

Shapes: B batch, D width. Times and guidance are given as the network was told them in training, i.e. times 1000.
"""

from __future__ import annotations

import torch
from diffusers.models.embeddings import CombinedTimestepTextProjEmbeddings, TimestepEmbedding, Timesteps
from torch import Tensor

from musubi.embedding.sinusoid import Sinusoid


class PreciseConditioning(CombinedTimestepTextProjEmbeddings):
    """Embed time, guidance and pooled text in float32 whatever the model's type; under autocast, too.

    Args:
        dim: D.
        pooled_dim: The pooled text's width.
        guided: Whether the distilled guidance is an input.
        waves: What turns times into 256 waves.
    """

    def __init__(self, dim: int, pooled_dim: int, *, guided: bool, waves: Timesteps) -> None:
        super().__init__(dim, pooled_dim)  # type: ignore[no-untyped-call]
        self.time_proj = waves
        self.guidance_embedder = TimestepEmbedding(in_channels=256, time_embed_dim=dim) if guided else None

    # One more argument than diffusers' own has.
    def forward(  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        self, timestep: Tensor, guidance: Tensor | None, pooled_projection: Tensor
    ) -> Tensor:
        """Return (B, D) in float32."""
        with torch.autocast(timestep.device.type, enabled=False):
            total: Tensor = self.timestep_embedder(self.time_proj(timestep.float()))
            if self.guidance_embedder is not None and guidance is not None:
                total = total + self.guidance_embedder(self.time_proj(guidance.float()))
            pooled: Tensor = self.text_embedder(pooled_projection.float())
        return total + pooled


class PreciseTextTime(CombinedTimestepTextProjEmbeddings):
    """Embed time and mean text in float32; only the result has the text's type."""

    def __init__(self, dim: int, text_dim: int) -> None:
        super().__init__(dim, text_dim)  # type: ignore[no-untyped-call]
        self.time_proj = Sinusoid()

    def forward(self, timestep: Tensor, pooled_projection: Tensor) -> Tensor:
        """Return (B, D) in the type of ``pooled_projection``."""
        with torch.autocast(timestep.device.type, enabled=False):
            time: Tensor = self.timestep_embedder(self.time_proj(timestep.float()))
            total: Tensor = time + self.text_embedder(pooled_projection.float())
        return total.to(pooled_projection.dtype)
