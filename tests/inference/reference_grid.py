"""diffusers' solver and texts as musubi has them, for pipelines of diffusers to be held against ours."""

from __future__ import annotations

import numpy as np
from diffusers import UniPCMultistepScheduler
from torch import Tensor
from torch.nn import functional

from musubi.architectures.wan.spec import TEXT_LENGTH


class ReferenceGrid(UniPCMultistepScheduler):
    """diffusers' solver on the reference's noise levels, which its pipeline has no argument for."""

    def set_timesteps(self, num_inference_steps: int, device: str | None = None, **_: object) -> None:
        grid = np.linspace(np.float32(0.999), 0, num_inference_steps + 1)[:-1]
        super().set_timesteps(  # type: ignore[misc]
            num_inference_steps, device=device, sigmas=grid
        )


def padded(text: Tensor) -> Tensor:
    """Return embeddings (tokens, width) with the zeros after them that diffusers' model counts on, in a batch."""
    return functional.pad(text, (0, 0, 0, TEXT_LENGTH - len(text)))[None]
