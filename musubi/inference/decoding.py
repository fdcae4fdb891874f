"""Latents to pictures and clips."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from musubi.architecture import Architecture
from musubi.inference.latents import Latents
from musubi.inference.media import Image, Video
from musubi.memory.components import loaded, policies_within
from musubi.memory.policy import MemoryPolicy

DECODER = "vae"
"""The component that decodes, in every architecture."""


@contextmanager
def opened_decoder(
    architecture: Architecture, *, policies: Sequence[MemoryPolicy] = (), device: torch.device
) -> Generator[nn.Module]:
    """Load the decoder for the length of a ``with``, as the policies of a pipeline or trainer ask for.

    It works in float32: what bfloat16 loses here is seen as bands in smooth areas.
    """
    component = architecture.component(DECODER)
    within = policies_within(policies, component)
    with loaded(architecture.codec(), component, within, device=device, dtype=torch.float32) as decoder:
        yield decoder


def decode(architecture: Architecture, decoder: nn.Module, latents: Tensor) -> Tensor:
    """Return frames of shape (batch, frames, height, width, 3) in [0, 1]."""
    with torch.inference_mode():
        return architecture.codec().decode({DECODER: decoder}, latents)


def decoded(architecture: Architecture, decoder: nn.Module, latents: Latents, *, device: torch.device) -> Image | Video:
    """Return the picture or clip of latents, without the frames that are dropped from its end."""
    frames = decode(architecture, decoder, latents.tensor[None].to(device))[0]
    kept = frames[: len(frames) - latents.trim_tail]
    return media(kept, fps=latents.fps or architecture.generation.fps, metadata=latents.metadata)


def media(frames: Tensor, *, fps: float, metadata: Mapping[str, str]) -> Image | Video:
    """Return frames (F, H, W, 3) in [0, 1] as a picture if there is one, else as a clip."""
    if len(frames) == 1:
        return Image(frames[0], metadata=metadata)
    return Video(frames, fps=fps, metadata=metadata)
