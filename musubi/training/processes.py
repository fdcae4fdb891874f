"""The processes of a run: where each computes, and what they compute together."""

from __future__ import annotations

from typing import cast

import torch
from accelerate.utils import reduce
from torch import Tensor

from musubi.core.errors import ConfigError, Issue
from musubi.memory.device import pick_device, usable_device
from musubi.team import Team


class Processes:
    """Which process this is, where it computes, and what it does together with the others."""

    def __init__(self, device: str | None) -> None:
        """Join the other processes; ``device`` None takes the best there is.

        Raises:
            ConfigError: This machine does not have the device, or the launcher has given this process another.
        """
        self._team = Team()
        self.rank, self.count = self._team.rank, self._team.count
        self.device = self._place(device)

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self._team.leads

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self._team.wait()

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
        given = torch.device(self._team.device)
        if name is not None and torch.device(name).type != given.type:
            hint = "leave device out: the launcher gives every process its own"
            raise ConfigError("no such device", [Issue("device", f"is {name!r}, but the launcher gave {given}", hint)])
        return given
