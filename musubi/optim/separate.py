"""Updating parameters one after another: during backward, and bfloat16 ones in float32."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from musubi.optim.rounding import copy_stochastic


class SeparateSteps(torch.optim.Optimizer):
    """Let an optimiser update one parameter at a time, and bfloat16 ones in float32 with stochastic rounding.

    ``whole`` is any optimiser that treats each parameter by itself and changes nothing in its groups. Groups and state
    are its own, and so is the state dictionary: it fits the same optimiser with and without this around it.

    The float32 copy is of one parameter at a time; the state of a bfloat16 parameter is float32 throughout.
    """

    def __init__(self, whole: torch.optim.Optimizer) -> None:
        self._whole = whole
        super().__init__(whole.param_groups, whole.defaults)
        self._share()
        self._homes = {p: i for i, group in enumerate(self.param_groups) for p in group["params"]}

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for parameter in self._homes:
            if parameter.grad is not None:
                self.step_one(parameter)
        return loss

    @torch.no_grad()
    def step_one(self, parameter: nn.Parameter) -> None:
        """Update one parameter by its gradient."""
        group = self.param_groups[self._homes[parameter]]
        if parameter.dtype == torch.bfloat16:
            self._step_wide(parameter, group)
        else:
            self._step_alone(parameter, group)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's own state."""
        return self._whole.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of the optimiser, with or without separate steps."""
        self._whole.load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self._whole.param_groups, self._whole.state

    def _step_wide(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        assert parameter.grad is not None, "only parameters with a gradient are updated"
        wide = nn.Parameter(parameter.detach().float())
        wide.grad = parameter.grad.float()
        with self._state_lent(parameter, wide):
            self._step_alone(wide, group)
        copy_stochastic(parameter.data, wide.data)

    @contextmanager
    def _state_lent(self, owner: nn.Parameter, borrower: nn.Parameter) -> Generator[None]:
        if owner in self.state:
            self.state[borrower] = self.state.pop(owner)
        try:
            yield
        finally:
            if borrower in self.state:
                self.state[owner] = self.state.pop(borrower)

    def _step_alone(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        self._whole.param_groups = [{**group, "params": [parameter]}]
        try:
            self._whole.step()
        finally:
            self._whole.param_groups = self.param_groups
