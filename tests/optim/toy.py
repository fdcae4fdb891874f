"""Two small parameters in two groups, and gradients for them: what every optimiser is tested on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from musubi.optim.optimizers import Optimizer
from musubi.parameters import ParameterGroup


class Toy:
    """A matrix and a vector under an optimiser; the matrix is large enough for 8-bit states."""

    def __init__(
        self, spec: Optimizer, *, dtype: torch.dtype = torch.float32, rates: Sequence[float] = (1.0, 1.0)
    ) -> None:
        drawn = torch.Generator().manual_seed(0)
        self.parameters = [
            nn.Parameter((0.1 * torch.randn(shape, generator=drawn)).to(dtype)) for shape in ((64, 80), (16,))
        ]
        self.groups = [
            ParameterGroup(name=name, parameters=(parameter,), rate=rate)
            for name, parameter, rate in zip(("unet", "unet plus"), self.parameters, rates, strict=True)
        ]
        self.optimizer = spec.build(self.groups)

    def take(self, first: int, count: int) -> None:
        """Take steps of this number and after, each with its own gradients and random numbers, as a run does."""
        for step in range(first, first + count):
            for parameter, gradient in zip(self.parameters, self.gradients(step), strict=True):
                parameter.grad = gradient
            torch.manual_seed(step)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def gradients(self, step: int) -> list[Tensor]:
        """Return the gradients of a step."""
        drawn = torch.Generator().manual_seed(100 + step)
        return [(0.1 * torch.randn(p.shape, generator=drawn)).to(p.dtype) for p in self.parameters]

    def values(self) -> list[Tensor]:
        """Return copies of the parameters."""
        return [parameter.detach().clone() for parameter in self.parameters]

    def resumed(self, spec: Optimizer) -> Toy:
        """Return another of these with the parameters and the saved state of this one, as after a restart."""
        again = Toy(spec, dtype=self.parameters[0].dtype)
        for parameter, value in zip(again.parameters, self.values(), strict=True):
            parameter.data.copy_(value)
        again.optimizer.load_state_dict(saved(self.optimizer.state_dict()))
        return again


def saved(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state as it comes back from a file that may hold nothing but data."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded
