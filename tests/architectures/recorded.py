"""The frequencies of the machine on which the golden cases were made."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from musubi.embedding.conditioning import PreciseConditioning, PreciseTextTime
from musubi.embedding.sinusoid import Sinusoid

M = TypeVar("M", bound=nn.Module)


class RecordedSinusoid(Sinusoid):
    """The frequencies as they were there.

    One of the 128 lies near the middle between two float32 numbers and was rounded to the farther one, 0.53 of the way.
    Guidance of 1000 and more multiplies that bit; the reference itself, run on other machines, is off by 1e-5 to 1e-4.
    """

    def frequencies(self, device: torch.device) -> Tensor:
        rounded = super().frequencies(device)
        rounded[13] = torch.nextafter(rounded[13], rounded[0])
        return rounded


def as_recorded(model: M) -> M:
    """Return the model with these frequencies."""
    for module in model.modules():
        if isinstance(module, PreciseConditioning | PreciseTextTime) and isinstance(module.time_proj, Sinusoid):
            module.time_proj = RecordedSinusoid()
    return model
