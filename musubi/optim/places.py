"""Optimiser states that lie where updates happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def move_state(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Put a loaded state on the device that computes.

    torch puts it where each parameter is. One that is swapped out waits on the host, but is updated on the device.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter in optimizer.state:
                _move(optimizer.state[parameter], group, device)


def _move(state: dict[str, Any], group: Mapping[str, Any], device: torch.device) -> None:
    for name, value in state.items():
        # torch counts steps on the host unless a kernel on the device needs the count.
        counted = name == "step" and not (group.get("fused") or group.get("capturable"))
        if isinstance(value, Tensor) and not counted:
            state[name] = value.to(device)
