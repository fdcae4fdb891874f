"""A denoiser ready for sampling: loaded, with LoRAs and memory policies applied, and undone on exit."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import torch
from torch import nn

from musubi.architecture import Architecture, Denoiser, Expert
from musubi.core.errors import ConfigError, WeightsError
from musubi.inference.fitting import arranged
from musubi.inference.loras import LoRAUse
from musubi.keymap import KeyMap
from musubi.memory.as_stored import AsStored
from musubi.memory.policy import (
    MemoryPolicy,
    Placement,
    loading_device,
    preparation,
    weight_hook,
)
from musubi.memory.together import Use, home, placed_together
from musubi.networks.adapters import AdapterSet
from musubi.networks.file import LoRAFile
from musubi.networks.groups import groups_of
from musubi.networks.merge import Merge


@attrs.frozen(kw_only=True, eq=False)
class ExpertReady:
    """An expert's loaded model and the adapters attached to it."""

    expert: Expert
    model: nn.Module
    adapters: tuple[nn.Module, ...]


@attrs.frozen(kw_only=True, eq=False)
class Ready:
    """A denoiser with its loaded model and the adapters attached to it.

    With several ``experts``, ``model`` and ``adapters`` are those of the first, and ``use`` lets one of them, by name,
    have the device.
    """

    denoiser: Denoiser[Any]
    model: nn.Module
    adapters: tuple[nn.Module, ...]
    experts: tuple[ExpertReady, ...] = ()
    use: Use | None = None

    @classmethod
    def of(cls, denoiser: Denoiser[Any], experts: Sequence[ExpertReady], use: Use) -> Ready:
        """Return a denoiser with one expert or several."""
        first = experts[0]
        several = tuple(experts) if len(experts) > 1 else ()
        return cls(denoiser=denoiser, model=first.model, adapters=first.adapters, experts=several, use=use)

    def at(self, sigma: float) -> Ready | ExpertReady:
        """Return what is responsible for a noise level, ready to be asked until the next call."""
        if not self.experts or self.use is None:
            return self
        found = next(one for one in self.experts if one.expert.covers(sigma))
        self.use(found.expert.name)
        return found


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

    Of several experts each has the LoRAs that concern it.

    Raises:
        ConfigError: The policies do not fit what the checkpoint's header tells, or a LoRA is for an unknown expert.
        WeightsError: A checkpoint cannot be read, or a LoRA has modules that the model lacks.
    """
    layout, denoiser, experts = architecture.layout, architecture.denoiser(), architecture.experts
    check_experts(architecture, [use for use, _ in loras])
    ordered = arranged(architecture, denoiser, policies)
    place = home(len(experts), ordered, device)
    placement = Placement(title=architecture.title, layout=layout, device=device, dtype=dtype, training=False)
    with ExitStack() as stack:
        loaded: list[ExpertReady] = []
        for expert in experts:
            own = loras_of(architecture, expert, loras)
            merge = merge_of(architecture, denoiser, [(use, file) for use, file in own if use.merge], expert)
            model = load_model(architecture, denoiser, ordered, device=place, dtype=dtype, before=merge, expert=expert)
            merge.check()
            attached = [(use, file) for use, file in own if not use.merge]
            adapters = tuple(_adapters(use, file, model, architecture.keys).to(device) for use, file in attached)
            for adapter in adapters:
                stack.enter_context(adapter.attached(model))
            loaded.append(ExpertReady(expert=expert, model=model, adapters=adapters))
        models = {one.expert.name: one.model for one in loaded}
        use = stack.enter_context(placed_together(models, ordered, placement))
        yield Ready.of(denoiser, loaded, use)


def check_experts(architecture: Architecture, uses: Sequence[LoRAUse], *, path: str = "loras") -> None:
    """Refuse LoRAs that are said to be for experts which the model does not have.

    Raises:
        ConfigError: With every such LoRA.
    """
    issues = [
        issue.under(f"{path}[{index}]")
        for index, use in enumerate(uses)
        for issue in use.expert_issues(architecture.experts)
    ]
    if issues:
        raise ConfigError(architecture.title, issues)


def loras_of(
    architecture: Architecture, expert: Expert, loras: Sequence[tuple[LoRAUse, LoRAFile]]
) -> list[tuple[LoRAUse, LoRAFile]]:
    """Return those LoRAs that are used on an expert."""
    return [(use, file) for use, file in loras if use.concerns(expert, file, architecture.experts)]


def merge_of(
    architecture: Architecture,
    denoiser: Denoiser[Any],
    loras: Sequence[tuple[LoRAUse, LoRAFile]],
    expert: Expert | None = None,
) -> Merge:
    """Return what merges LoRAs, by the names of the model's own modules, while its weights are loaded.

    ``expert`` None is the first.
    """
    if not loras:
        return Merge(())
    groups = groups_of(denoiser.empty(expert or architecture.experts[0]), architecture.keys)
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
    expert: Expert | None = None,
) -> nn.Module:
    """Load an expert, None is the first, through what arranged policies do to its weights, LoRAs merged ``before``.

    Matrices that the file has in 8 bits stay in these bits, but for those that a LoRA is merged into: they are
    quantised anew.
    """
    layout, keys, expert = architecture.layout, architecture.keys, expert or architecture.experts[0]
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
