"""Latents to pictures and clips."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from musubi.architecture import Architecture
from musubi.inference.media import Image, Video

DECODER = "vae"
"""The component that decodes, in every architecture."""


def load_decoder(architecture: Architecture, *, device: torch.device) -> nn.Module:
    """Load the decoder in float32: what bfloat16 loses here is seen as bands in smooth areas."""
    return architecture.codec().load(DECODER, device=device, dtype=torch.float32)


def decode(architecture: Architecture, decoder: nn.Module, latents: Tensor) -> Tensor:
    """Return frames of shape (batch, frames, height, width, 3) in [0, 1]."""
    with torch.inference_mode():
        return architecture.codec().decode({DECODER: decoder}, latents)


def media(frames: Tensor, *, fps: float, metadata: Mapping[str, str]) -> Image | Video:
    """Return frames (F, H, W, 3) in [0, 1] as a picture if there is one, else as a clip."""
    if len(frames) == 1:
        return Image(frames[0], metadata=metadata)
    return Video(frames, fps=fps, metadata=metadata)
