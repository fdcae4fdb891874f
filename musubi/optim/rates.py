"""The learning rates that are really in effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def effective_rates(optimizer: torch.optim.Optimizer) -> Mapping[str, float]:
    """Return the rate of every parameter group by its name, as of the last step.

    Prodigy and its kin multiply theirs by the estimate ``d``; schedule-free ones by their own warm-up. Where Adafactor
    sets its own, it is that of the group's first parameter, 0 before the first step.
    """
    return {
        str(group.get("name", f"group{i}")): _rate(optimizer, group) for i, group in enumerate(optimizer.param_groups)
    }


def _rate(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
    if group.get("relative_step"):
        return _relative(optimizer, group)
    if group.get("scheduled_lr") and group.get("k"):
        return float(group["scheduled_lr"])
    shared = group.get("shared_d") if group.get("split_groups_mean") else None
    return float(group["lr"]) * float(group.get("d", 1.0) if shared is None else shared)


def _relative(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> float:
    from musubi.optim.relative_step import relative_rate

    state = optimizer.state.get(group["params"][0])
    return float(relative_rate(group, state)) if state else 0.0
