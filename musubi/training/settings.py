"""A trainer's values for others to read: those that a resumed run must agree on, and all for a tracker."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from musubi.architecture import Architecture
from musubi.memory.device import pick_device, pick_dtype
from musubi.training.trainer import Trainer

_MAY_CHANGE = frozenset(
    (
        *("steps", "epochs", "output", "name", "about", "device", "memory", "cache", "on_nonfinite", "validation"),
        *("save_every", "save_every_epochs", "state_every", "state_every_epochs", "keep_last", "keep_last_states"),
        *("samples", "sample_every", "sample_every_epochs"),
    )
)
"""What alters no step that is yet to come. Of the memory policies, those that change weights are looked at apart."""

_PLACES = frozenset(("cache", "output"))

Told = str | int | float | bool
"""What every tracker takes as the value of a setting."""


def settings(trainer: Trainer[Architecture]) -> dict[str, Any]:
    """Return the trainer's values that decide the sequence of steps: what a resumed run must agree on."""
    values = _shareable(trainer)
    values["precision"] = str(pick_dtype(trainer.precision, pick_device(trainer.device))).removeprefix("torch.")
    values["weights_changed_by"] = [policy.to_dict() for policy in trainer.memory if policy.changes_weights]
    return {name: value for name, value in values.items() if name not in _MAY_CHANGE}


def told_settings(trainer: Trainer[Architecture]) -> dict[str, Told]:
    """Return all of a trainer's values under dotted names, without paths: ``network.rank``, ``optimizer.lr``, ..."""
    values = {name: value for name, value in _shareable(trainer).items() if name not in _PLACES}
    return dict(_flat(values, ""))


def weight_names(model: Architecture) -> dict[str, str]:
    """Return the user's own weights by component, without directories."""
    return {component: ref.name for component, ref in model.weights.items()}


def _shareable(trainer: Trainer[Architecture]) -> dict[str, Any]:
    """Return plain values in which files are named without their folders."""
    values = trainer.replace(base_loras=()).to_dict()
    values["model"] = {**values["model"], "weights": weight_names(trainer.model)}
    values["base_loras"] = [use.name for use in trainer.base_loras]
    if trainer.initial is not None:
        values["initial"] = trainer.initial.name
    if trainer.prior is not None:  # what its cache holds is compared as data
        values["prior"] = {name: value for name, value in values["prior"].items() if name != "cache"}
    return values


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Told]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(cast(Mapping[str, Any], value), f"{prefix}{name}.")
        elif isinstance(value, str | int | float | bool):
            yield f"{prefix}{name}", value
        elif value:
            yield f"{prefix}{name}", json.dumps(value, ensure_ascii=False)
