"""A denoiser ready for sampling: loaded, with LoRAs and memory policies applied, and undone on exit."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import torch
from torch import nn

from musubi.architecture import Architecture, Denoiser
from musubi.core.errors import WeightsError
from musubi.inference.fitting import arranged
from musubi.inference.loras import LoRAUse
from musubi.keymap import KeyMap
from musubi.memory.as_stored import AsStored
from musubi.memory.policy import (
    MemoryPolicy,
    Placement,
    loading_device,
    placed,
    preparation,
    weight_hook,
)
from musubi.networks.adapters import AdapterSet
from musubi.networks.file import LoRAFile
from musubi.networks.groups import groups_of
from musubi.networks.merge import Merge


@attrs.frozen(kw_only=True, eq=False)
class Ready:
    """A denoiser with its loaded model and the adapters attached to it."""

    denoiser: Denoiser[Any]
    model: nn.Module
    adapters: tuple[nn.Module, ...]


@contextmanager
def ready(
    architecture: Architecture,
    *,
    loras: Sequence[tuple[LoRAUse, LoRAFile]],
    policies: Sequence[MemoryPolicy],
    device: torch.device,
    dtype: torch.dtype,
) -> Generator[Ready]:
    """Load the model for the length of a ``with``: merged LoRAs, policies, attached LoRAs, in this order.

    Raises:
        ConfigError: The policies do not fit what the checkpoint's header tells.
        WeightsError: A checkpoint cannot be read, or a LoRA has modules that the model lacks.
    """
    layout, keys, denoiser = architecture.layout, architecture.keys, architecture.denoiser()
    ordered = arranged(architecture, denoiser, policies)
    merge = merge_of(architecture, denoiser, [(use, file) for use, file in loras if use.merge])
    model = load_model(architecture, denoiser, ordered, device=device, dtype=dtype, before=merge)
    merge.check()
    with ExitStack() as stack:
        adapters = tuple(_adapters(use, file, model, keys).to(device) for use, file in loras if not use.merge)
        for adapter in adapters:
            stack.enter_context(adapter.attached(model))
        placement = Placement(title=architecture.title, layout=layout, device=device, dtype=dtype, training=False)
        stack.enter_context(placed(model, ordered, placement))
        yield Ready(denoiser=denoiser, model=model, adapters=adapters)


def merge_of(architecture: Architecture, denoiser: Denoiser[Any], loras: Sequence[tuple[LoRAUse, LoRAFile]]) -> Merge:
    """Return what merges LoRAs, by the names of the model's own modules, while its weights are loaded."""
    if not loras:
        return Merge(())
    groups = groups_of(denoiser.empty(architecture.experts[0]), architecture.keys)
    rows = {name: group.rows for name, group in groups.items()}
    return Merge(tuple((_bound(use, file, groups, architecture.keys, rows), use.weight) for use, file in loras))


def _bound(
    use: LoRAUse, file: LoRAFile, names: Iterable[str], keys: KeyMap, rows: Mapping[str, Sequence[int]]
) -> LoRAFile:
    try:
        return file.bind(names, keymap=keys, rows=rows)
    except WeightsError as error:
        raise WeightsError(f"{error.title} ({use.name})", error.issues) from error


def _adapters(use: LoRAUse, file: LoRAFile, model: nn.Module, keys: KeyMap) -> AdapterSet:
    try:
        return AdapterSet.from_file(file, model, keys=keys, weight=use.weight)
    except WeightsError as error:
        raise WeightsError(f"{error.title} ({use.name})", error.issues) from error


def load_model(
    architecture: Architecture,
    denoiser: Denoiser[Any],
    ordered: Sequence[MemoryPolicy],
    *,
    device: torch.device,
    dtype: torch.dtype,
    before: Merge | None = None,
) -> nn.Module:
    """Load the denoiser's model through what arranged policies do to its weights, LoRAs merged ``before``.

    Matrices that the file has in 8 bits stay in these bits, but for those that a LoRA is merged into: they are
    quantised anew.
    """
    layout, keys, expert = architecture.layout, architecture.keys, architecture.experts[0]
    merges = [before] if before is not None and before.parts else []
    stored = denoiser.stored(expert)
    merged = frozenset(name for merge in merges for name in merge.names)
    policies = (AsStored(stored=stored, merged=merged), *ordered) if stored else tuple(ordered)
    return denoiser.load(
        expert,
        device=loading_device(policies, device),
        dtype=dtype,
        prepare=preparation(policies, keys=keys, layout=layout),
        on_weight=weight_hook(policies, keys=keys, layout=layout, before=merges),
    )
