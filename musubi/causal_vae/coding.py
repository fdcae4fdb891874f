"""Pixels to latents and back, by a causal VAE on diffusers' classes.

Shape suffixes: B batch, C channels, F frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from musubi.data.media.frames import scaled


class CausalVae(Protocol):
    """What diffusers' classes of the network have in common: it has one for each family."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Among others ``latents_mean`` and ``latents_std``."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it is."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        ...

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Return a tuple of the posterior."""
        ...

    def decode(self, z: Tensor, return_dict: bool = True) -> Any:
        """Return a tuple of the frames."""
        ...


def encode_pixels(vae: CausalVae, pixels_BFHWC: Tensor) -> Tensor:
    """Return the latents (B, C, F, H, W) of uint8 pixels; all items go through the VAE together."""
    return encode_video(vae, scaled(pixels_BFHWC.to(vae.device)))


@torch.no_grad()
def encode_video(vae: CausalVae, video_BCFHW: Tensor) -> Tensor:
    """Return the latents of videos in [-1, 1]: the posterior's mean, normalised, in the VAE's type."""
    mean, inverse_std = _statistics(vae)
    posterior = vae.encode(video_BCFHW.to(vae.device, vae.dtype), return_dict=False)[0]
    # Multiplying by 1 / std, not dividing by std, is what the published caches and samplers do, to the last bit.
    latents: Tensor = (posterior.mode().float() - mean) * inverse_std
    return latents.to(vae.dtype)


@torch.no_grad()
def decode_latents(vae: CausalVae, latents_BCFHW: Tensor) -> Tensor:
    """Return frames of shape (B, F, H, W, 3) as float32 in [0, 1], one video at a time."""
    videos = [decode_video(vae, latents[None])[0] for latents in latents_BCFHW]
    return torch.stack([(video.permute(1, 2, 3, 0) + 1.0) / 2.0 for video in videos])


@torch.no_grad()
def decode_video(vae: CausalVae, latents_BCFHW: Tensor) -> Tensor:
    """Return a video in [-1, 1] of shape (B, 3, F, H, W) as float32."""
    mean, inverse_std = _statistics(vae)
    latents = latents_BCFHW.to(vae.device, torch.float32) / inverse_std + mean
    video: Tensor = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
    return video.float().clamp(-1.0, 1.0)


def _statistics(vae: CausalVae) -> tuple[Tensor, Tensor]:
    """Return mean and 1 / std of the latents' channels, shaped to broadcast."""
    mean = torch.tensor(vae.config["latents_mean"], dtype=torch.float32, device=vae.device)
    std = torch.tensor(vae.config["latents_std"], dtype=torch.float32, device=vae.device)
    return mean.view(1, -1, 1, 1, 1), (1.0 / std).view(1, -1, 1, 1, 1)
