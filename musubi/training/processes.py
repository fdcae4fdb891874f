"""The processes of a run: one, unless ``accelerate launch`` or ``torchrun`` started several.

Only accelerate's process state is used. Its ``Accelerator`` keeps precision and accumulation once for the whole
interpreter, where the environment or another run in it would change this run's numbers.
"""

from __future__ import annotations

from typing import cast

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor

from musubi.core.errors import ConfigError, Issue
from musubi.memory.device import pick_device, usable_device


class Processes:
    """Which process this is, where it computes, and what it does together with the others."""

    def __init__(self, device: str | None) -> None:
        """Join the other processes; ``device`` None takes the best there is.

        Raises:
            ConfigError: This machine does not have the device, or the launcher has given this process another.
        """
        self._state = PartialState()
        self.rank: int = self._state.process_index
        self.count: int = self._state.num_processes
        self.device = self._place(device)

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self._state.wait_for_everyone()

    def average(self, tensors: list[Tensor]) -> None:
        """Replace every tensor by its mean over the processes, in one flat reduction."""
        if self.count == 1:
            return
        mean = cast(Tensor, reduce(torch.cat([tensor.reshape(-1) for tensor in tensors]), "mean"))
        for tensor, part in zip(tensors, mean.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def _place(self, name: str | None) -> torch.device:
        if self.count == 1:
            return pick_device(None) if name is None else usable_device(name)
        given = cast(torch.device, self._state.device)
        if name is not None and torch.device(name).type != given.type:
            hint = "leave device out: the launcher gives every process its own"
            raise ConfigError("no such device", [Issue("device", f"is {name!r}, but the launcher gave {given}", hint)])
        return given
