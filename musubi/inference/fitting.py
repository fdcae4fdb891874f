"""What memory policies may look at: known of a model and its file before any weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from musubi.core.errors import WeightsError
from musubi.memory.policy import FitContext, MemoryPolicy, arrange, blocks_of

if TYPE_CHECKING:
    from torch import nn

    from musubi.architecture import Architecture, Denoiser, Expert, StoredWeight


def fit_context(model: Architecture, policies: Sequence[MemoryPolicy]) -> FitContext:
    """Return what is known of generating with a model; imports no torch and loads nothing.

    The file's header is read if it is there already and a policy would change its weights.
    """
    context = FitContext.of(model, training=False)
    return attrs.evolve(context, stored=stored_form(model) if changing(policies) else None)


def changing(policies: Sequence[MemoryPolicy]) -> bool:
    """Tell whether a policy would change the base weights."""
    return any(policy.changes_weights for policy in policies)


def stored_form(model: Architecture) -> str | None:
    """Return in what a local file keeps its matrices if they are quantised, e.g. ``float8_e4m3fn``.

    None also for a file that is elsewhere or cannot be read: loading it, or planning with it, says so.
    """
    from musubi.weights.stored import first_quantised

    refs = [model.weight(expert.component) for expert in model.experts]
    paths = [Path(ref.location) for ref in refs if not ref.on_hub]
    try:
        found = [first_quantised(path) for path in paths if path.exists()]
    except WeightsError:
        return None
    return next((form for form in found if form is not None), None)


def opened(context: FitContext, empty: nn.Module, stored: Mapping[str, StoredWeight]) -> FitContext:
    """Return a context with what the checkpoint's header tells: how many blocks there are, and how they are stored.

    Args:
        context: What was known before.
        empty: The model on the meta device, ``Denoiser.empty``.
        stored: The matrices that are quantised already, ``Denoiser.stored``.
    """
    form = next((weight.dtype for weight in stored.values()), None)
    return attrs.evolve(context, blocks=len(blocks_of(empty, context.layout)), stored=form)


def arranged(
    model: Architecture, denoiser: Denoiser[Any], policies: Sequence[MemoryPolicy]
) -> tuple[MemoryPolicy, ...]:
    """Return the policies of a pipeline in their order, once they fit what the checkpoint's header tells.

    Raises:
        ConfigError: They do not fit.
        WeightsError: The checkpoint cannot be read or does not fit the model.
    """
    context = FitContext.of(model, training=False)
    return arranged_for(model.experts, denoiser, policies, context)


def arranged_for(
    experts: Sequence[Expert], denoiser: Denoiser[Any], policies: Sequence[MemoryPolicy], context: FitContext
) -> tuple[MemoryPolicy, ...]:
    """Return policies in their order, once they fit what the header of each expert's checkpoint tells.

    Raises:
        ConfigError: They do not fit.
        WeightsError: A checkpoint cannot be read or does not fit the model.
    """
    ordered: tuple[MemoryPolicy, ...] = ()
    for expert in experts:
        ordered = arrange(policies, opened(context, denoiser.empty(expert), denoiser.stored(expert)))
    return ordered
