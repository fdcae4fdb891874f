"""Waves that tell a network a time, the same on every machine."""

from __future__ import annotations

import math

import torch
from diffusers.models.embeddings import Timesteps
from torch import Tensor


class Sinusoid(Timesteps):
    """Turn times into cosines and sines of 128 frequencies that are the same on every machine.

    ``torch.exp`` in float32 differs in the last bit between processors, and guidance of a thousand and more multiplies
    that. Here the exponents are float32, as the models were trained with, and the exponential is rounded once.
    """

    def __init__(self) -> None:
        super().__init__(num_channels=256, flip_sin_to_cos=True, downscale_freq_shift=0)

    def frequencies(self, device: torch.device) -> Tensor:
        """Return the frequencies (128,), from 1 down to nearly 1 / 10000."""
        # float64 does not exist on Apple's GPUs: these few numbers are computed on the host, wherever the model is
        exponents = torch.arange(128, dtype=torch.float32, device="cpu") * -math.log(10000) / 128
        return exponents.double().exp().float().to(device)

    def forward(self, timesteps: Tensor) -> Tensor:
        """Return (B, 256) in float32, cosines first."""
        phases = timesteps.float()[:, None] * self.frequencies(timesteps.device)
        return torch.cat([phases.cos(), phases.sin()], dim=-1)
