"""Optimiser states that come back in the types they were saved in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def keep_types(optimizer: torch.optim.Optimizer) -> None:
    """Make ``load_state_dict`` give every tensor of the state back in its own type.

    torch casts them to the type of their parameter: float32 moments of a bfloat16 parameter would come back rounded,
    and what Prodigy-plus keeps in bfloat16 of a float32 parameter wider than it was. Neither run would be the same.
    """
    types = _Types()
    optimizer.register_load_state_dict_pre_hook(types.remember)
    optimizer.register_load_state_dict_post_hook(types.restore)


class _Types:
    """Hold the state between the two hooks."""

    def __init__(self) -> None:
        self._saved: Mapping[str, Any] = {}

    def remember(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Keep what is about to be loaded."""
        self._saved = state

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Put the tensors whose type torch changed back in their own, on the device that torch moved them to."""
        saved, self._saved = self._saved, {}
        places = parameters_of(saved["param_groups"])
        for place, parameter in zip(places, parameters_of(optimizer.param_groups), strict=True):
            loaded = optimizer.state[parameter]
            for name, value in saved["state"].get(place, {}).items():
                if isinstance(value, Tensor) and loaded[name].dtype != value.dtype:
                    loaded[name] = value.to(device=loaded[name].device, copy=True)


def parameters_of(groups: Iterable[Mapping[str, Any]]) -> list[nn.Parameter]:
    """Return the parameters of torch's groups, or the numbers that stand for them in a saved state."""
    return [parameter for group in groups for parameter in group["params"]]
