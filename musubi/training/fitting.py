"""What memory policies may look at in a trainer, before any weight is loaded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from musubi.inference import fitting
from musubi.memory.policy import FitContext

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.training.trainer import Trainer

_TRUE = frozenset(("1", "on", "t", "true", "y", "yes"))
"""What ``accelerate.utils.str_to_bool`` takes for true."""


def fit_context(trainer: Trainer[Architecture]) -> FitContext:
    """Return what is known of a trainer; imports no torch and loads nothing.

    The base model's file is looked into if it is there already and its form matters: a policy would change its weights,
    or they are what is trained.
    """
    trains_base = trainer.network.trains_base
    asked = trains_base or fitting.changing(trainer.memory)
    return attrs.evolve(
        FitContext.of(trainer.model, training=True),
        trains_base=trains_base,
        fused_backward=trainer.optimizer.fused_backward,
        divided=launched_divided(),
        stored=fitting.stored_form(trainer.model) if asked else None,
    )


def launched_divided() -> bool:
    """Tell whether a launcher has started several processes that keep only their parts of a model (FSDP).

    Read from the environment, as accelerate does, but without loading it: a trainer that cannot run on the processes
    that are there already should say so when it is made.
    """
    several = os.environ.get("WORLD_SIZE", "1") not in {"0", "1"}
    return several and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in _TRUE
