"""Adapters over a frozen model: created, attached by hooks, and taken off again without a trace."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager

import attrs
import torch
from torch import Generator, Tensor, nn
from torch.utils.hooks import RemovableHandle

from musubi.architecture import Layout
from musubi.core.errors import ConfigError, Issue, WeightsError
from musubi.keymap import KeyMap
from musubi.networks.file import LoRAFile
from musubi.networks.groups import groups_of, linears_of, targeted
from musubi.networks.keys import LayoutName, flat
from musubi.networks.layers import AdapterLayer, LoRALayer
from musubi.networks.network import Network
from musubi.networks.weights import LoRAWeights

_Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


@attrs.frozen(eq=False)
class Adapter:
    """One layer, the original module it adapts, and the library's Linears that this is."""

    original: str
    members: tuple[str, ...]
    layer: AdapterLayer


class AdapterSet(nn.Module):
    """All adapters of a model; the model itself is not part of it and never changed.

    ``weight`` multiplies every delta and may be changed at any time. ``train()`` and ``eval()`` switch dropout.
    Several sets may be attached to one model; their deltas add up.
    """

    def __init__(self, adapters: Iterable[Adapter], *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self._adapters = {adapter.original: adapter for adapter in adapters}
        self.layers = nn.ModuleDict({flat(name): adapter.layer for name, adapter in self._adapters.items()})
        self._handles: list[RemovableHandle] = []

    @classmethod
    def create(
        cls, network: Network, model: nn.Module, *, keys: KeyMap, layout: Layout, generator: Generator
    ) -> AdapterSet:
        """Return fresh adapters, without effect yet, for the modules that the network targets; not attached.

        Args:
            network: Kind, rank, strength and targets.
            model: The base model, on any device.
            keys: Its original names.
            layout: Its default set of adapted modules.
            generator: Source of the initial weights, consumed in the model's module order; of the CPU.

        Raises:
            ConfigError: A target pattern matches no module.
        """
        groups = targeted(model, network.targets, keys=keys, layout=layout)
        return cls(
            Adapter(
                group.original,
                group.members,
                network.layer(linears_of(model, group.members), rank=network.rank, generator=generator),
            )
            for group in groups
        )

    @classmethod
    def from_file(cls, file: LoRAFile, model: nn.Module, *, keys: KeyMap, weight: float = 1.0) -> AdapterSet:
        """Return frozen adapters with a file's weights, ranks and strengths, in evaluation mode; not attached.

        Raises:
            WeightsError: The file has modules or shapes that the model lacks.
        """
        groups = groups_of(model, keys)
        bound = file.bind(groups, keymap=keys)
        _check_shapes(bound, {name: (groups[name].in_features, sum(groups[name].rows)) for name in bound.modules})
        adapters = cls(
            (
                Adapter(name, groups[name].members, _loaded(weights, groups[name].in_features, groups[name].rows))
                for name, weights in bound.modules.items()
            ),
            weight=weight,
        )
        return adapters.requires_grad_(requires_grad=False).eval()

    @property
    def names(self) -> tuple[str, ...]:
        """The adapted modules by original name."""
        return tuple(self._adapters)

    @property
    def zero_effect(self) -> bool:
        """Whether the adapters change nothing, as before the first training step."""
        return all(adapter.layer.has_no_effect() for adapter in self._adapters.values())

    def attach(self, model: nn.Module) -> None:
        """Let every adapted Linear of the model add its delta to its output, until ``detach``.

        Raises:
            ConfigError: The set is attached already.
            WeightsError: The model lacks one of the Linears.
        """
        if self._handles:
            hint = "detach() it first, or use `with adapters.attached(model):`"
            raise ConfigError("adapters", [Issue("", "the set is attached to a model already", hint)])
        pairs = [
            (linear, self._hook(adapter.layer, part))
            for adapter in self._adapters.values()
            for part, linear in enumerate(linears_of(model, adapter.members))
        ]
        self._handles = [linear.register_forward_hook(hook) for linear, hook in pairs]

    def detach(self) -> None:
        """Take the adapters off: the model is again exactly what it was."""
        while self._handles:
            self._handles.pop().remove()

    @contextmanager
    def attached(self, model: nn.Module) -> abc.Generator[None]:
        """Attach for the duration of a ``with`` block."""
        self.attach(model)
        try:
            yield
        finally:
            self.detach()

    def to_file(self, metadata: Mapping[str, str] | None = None, *, layout: LayoutName = "comfy") -> LoRAFile:
        """Return a copy of the weights as a file's content; ``weight`` is not part of it."""
        modules = {name: adapter.layer.weights() for name, adapter in self._adapters.items()}
        return LoRAFile(modules=modules, metadata=dict(metadata or {}), layout=layout)

    def load_file(self, file: LoRAFile) -> None:
        """Take over a file's weights and strengths; it must have exactly these modules and ranks.

        Raises:
            WeightsError: Listing every module that is missing, unknown or of another shape.
        """
        bound = file.bind(self._adapters)
        missing = [name for name in self._adapters if name not in bound.modules]
        if missing:
            raise WeightsError("the LoRA does not fit", [Issue(name, "is missing in the file") for name in missing])
        current = {name: adapter.layer.weights() for name, adapter in self._adapters.items()}
        _check_shapes(bound, {name: (w.down.shape[1], w.up.shape[0]) for name, w in current.items()}, current=current)
        for name, adapter in self._adapters.items():
            adapter.layer.load(bound.modules[name])

    def _hook(self, layer: AdapterLayer, part: int) -> _Hook:
        def add_delta(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return torch.add(output, layer.delta(inputs[0], part).to(output.dtype), alpha=self.weight)

        return add_delta


def _loaded(weights: LoRAWeights, in_features: int, rows: tuple[int, ...]) -> LoRALayer:
    layer = LoRALayer(in_features, rows, rank=weights.rank, alpha=float(weights.alpha))
    layer.load(weights)
    return layer


def _check_shapes(
    file: LoRAFile, sizes: Mapping[str, tuple[int, int]], current: Mapping[str, LoRAWeights] | None = None
) -> None:
    issues: list[Issue] = []
    for name, weights in file.modules.items():
        width, height = sizes[name]
        rank = current[name].rank if current is not None else weights.rank
        wanted, found = ((rank, width), (height, rank)), (tuple(weights.down.shape), tuple(weights.up.shape))
        if wanted != found:
            issues.append(Issue(name, f"down and up are {found[0]} and {found[1]}, here {wanted[0]} and {wanted[1]}"))
    if issues:
        raise WeightsError("the LoRA does not fit this model", issues)
