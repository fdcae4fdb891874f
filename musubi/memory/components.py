"""The codec's components under memory policies: loaded through them, placed while they work, then freed."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import ConfigError
from musubi.memory.policy import (
    FitContext,
    MemoryPolicy,
    Placement,
    in_order,
    loading_device,
    placed,
    preparation,
    weight_hook,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

    from musubi.architecture import Codec, Component


def policies_within(policies: Iterable[MemoryPolicy], component: Component) -> tuple[MemoryPolicy, ...]:
    """Return what policies ask for in a component, in the order in which it applies."""
    return in_order(inner for policy in policies for inner in policy.within(component))


def fit_context(component: Component, *, stored: str | None = None) -> FitContext:
    """Return what is known of a component for the policies that act in it."""
    layout = component.layout
    return FitContext(title=title(component), layout=layout, blocks=layout.count, training=False, stored=stored)


def title(component: Component) -> str:
    """Return what messages call a component, e.g. ``the text encoder t5``."""
    return f"the text encoder {component.name}" if component.role == "text" else f"the {component.name}"


@contextmanager
def loaded(
    codec: Codec, component: Component, policies: Sequence[MemoryPolicy], *, device: torch.device, dtype: torch.dtype
) -> Generator[nn.Module]:
    """Load a component and place it for the length of a ``with``; whoever keeps no reference frees it by leaving.

    ``policies`` are those that act in it (``policies_within``). What its file keeps in 8 bits stays so.

    Raises:
        ConfigError: The policies do not fit the file: more blocks than there are, or it is quantised already.
        WeightsError: The file cannot be read or does not fit the model.
    """
    ordered = _with_stored(codec, component, policies)
    layout, keys = component.layout, component.keys
    model = codec.load(
        component.name,
        device=loading_device(ordered, device),
        dtype=dtype,
        prepare=preparation(ordered, keys=keys, layout=layout) if ordered else None,
        on_weight=weight_hook(ordered, keys=keys, layout=layout),
    )
    placement = Placement(title=title(component), layout=layout, device=device, dtype=dtype, training=False)
    with placed(model, ordered, placement):
        yield model


def release(device: torch.device) -> None:
    """Give the memory of models that nobody holds any more back to the device."""
    import torch

    if device.type == "cuda":
        gc.collect()  # models are in no cycles, but what went wrong with one may hold on to it
        torch.cuda.empty_cache()


def _with_stored(codec: Codec, component: Component, policies: Sequence[MemoryPolicy]) -> tuple[MemoryPolicy, ...]:
    """Return the policies in order, behind what keeps the file's own 8 bits if it has any."""
    from musubi.memory.as_stored import AsStored

    stored = codec.stored(component.name)
    if not stored:
        return in_order(policies)
    form = next(weight.dtype for weight in stored.values())
    context = attrs.evolve(fit_context(component, stored=form), policies=tuple(policies))
    issues = [issue for policy in policies for issue in policy.check(context)]
    if issues:
        raise ConfigError(f"memory policies do not fit {title(component)}", issues)
    return in_order((AsStored(stored=stored), *policies))
