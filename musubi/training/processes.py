"""The processes of a run: where each computes, and what they compute together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from accelerate.utils import reduce
from torch import Tensor, nn

from musubi.core.errors import ConfigError, Issue
from musubi.memory.device import pick_device, usable_device
from musubi.team import Team, reaching_others

T = TypeVar("T")


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

    @property
    def leads_machine(self) -> bool:
        """Whether this process is the first on its machine."""
        return self._team.leads_machine

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self._team.wait()

    def share(self, work: Callable[[], T]) -> list[T]:
        """Do something on every process, and return on all what each returned, or raise the first error of any."""
        return self._team.share(work)

    def every(self, work: Callable[[], T]) -> T:
        """Do something on every process and return what this one made, or raise the first error of any."""
        return self._team.every(work)

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the means over the processes, which all of them ask for at once."""
        if self.count == 1:
            return list(values)
        return self._mean(torch.tensor(values, dtype=torch.float64, device=self.device)).tolist()

    def average_gradients(self, parameters: Sequence[nn.Parameter], values: Sequence[float]) -> list[float]:
        """Replace every gradient by its mean over the processes, and return the means of ``values``.

        All of it is one reduction of one float32 bucket. A parameter that has a gradient nowhere keeps None, so that an
        optimiser skips it as it would in a single process.
        """
        if self.count == 1:
            return list(values)
        given = [float(parameter.grad is not None) for parameter in parameters]
        numbers = torch.tensor([*given, *values], dtype=torch.float32, device=self.device)
        bucket = self._mean(torch.cat([*(_flat_gradient(p) for p in parameters), numbers]))
        start = 0
        numbers = bucket[-len(numbers) :]
        for parameter, share in zip(parameters, numbers[: len(given)].tolist(), strict=True):
            part = bucket[start : start + parameter.numel()]
            parameter.grad = part.view_as(parameter).to(parameter.dtype) if share else None
            start += parameter.numel()
        return numbers[len(given) :].tolist()

    def _mean(self, tensor: Tensor) -> Tensor:
        with reaching_others():
            return cast(Tensor, reduce(tensor, "mean"))

    def _place(self, name: str | None) -> torch.device:
        if self.count == 1:
            return pick_device(None) if name is None else usable_device(name)
        given = torch.device(self._team.device)
        if name is not None and torch.device(name).type != given.type:
            hint = "leave device out: the launcher gives every process its own"
            raise ConfigError("no such device", [Issue("device", f"is {name!r}, but the launcher gave {given}", hint)])
        return given


def _flat_gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        return torch.zeros(parameter.numel(), dtype=torch.float32, device=parameter.device)
    return parameter.grad.reshape(-1).float()
