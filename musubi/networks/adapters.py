"""Adapters over a frozen model: created, attached by hooks, and taken off again without a trace."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager

import attrs
from torch import Generator, Tensor, nn
from torch.utils.hooks import RemovableHandle

from musubi.architecture import Architecture, Layout
from musubi.core.errors import ConfigError, Issue, WeightsError
from musubi.core.events import WeightNorms
from musubi.keymap import KeyMap
from musubi.networks.file import LoRAFile
from musubi.networks.groups import Group, groups_of, linears_of, sizes_of, targeted
from musubi.networks.keys import LayoutName, flat
from musubi.networks.layers import AdapterLayer
from musubi.networks.loading import layer_of
from musubi.networks.network import AdapterNetwork
from musubi.networks.norms import limit_norms
from musubi.networks.rules import rule_issues
from musubi.networks.trained import Trained
from musubi.networks.weights import AdapterWeights
from musubi.parameters import ParameterGroup

_Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


@attrs.frozen(eq=False)
class Adapter:
    """One layer, the original module it adapts, the library's Linears that this is, and its share of the rate."""

    original: str
    members: tuple[str, ...]
    layer: AdapterLayer
    rate: float = 1.0


class AdapterSet(Trained):
    """All adapters of a model; the model itself is not part of it and never changed.

    ``weight`` multiplies every delta and may be changed at any time. ``train()`` and ``eval()`` switch dropout.
    Several sets may be attached to one model; their deltas add up.
    """

    def __init__(
        self,
        adapters: Iterable[Adapter],
        *,
        weight: float = 1.0,
        plus_ratio: float = 1.0,
        max_norm: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = weight
        self._plus_ratio, self._max_norm = plus_ratio, max_norm
        self._adapters = {adapter.original: adapter for adapter in adapters}
        self.layers = nn.ModuleDict({flat(name): adapter.layer for name, adapter in self._adapters.items()})
        self._handles: list[RemovableHandle] = []

    @classmethod
    def create(
        cls, network: AdapterNetwork, model: nn.Module, *, keys: KeyMap, layout: Layout, generator: Generator
    ) -> AdapterSet:
        """Return fresh adapters, without effect yet, for the modules that the network targets; not attached.

        Args:
            network: Kind, sizes and targets.
            model: The base model, on any device.
            keys: Its original names.
            layout: Its default set of adapted modules.
            generator: Source of the initial weights, consumed in the model's module order; of the CPU.

        Raises:
            ConfigError: A target pattern or a rule matches no module.
        """
        adapters: list[Adapter] = []
        for group, sizes in targeted(model, network, keys=keys, layout=layout):
            layer = network.layer(linears_of(model, group.members), sizes=sizes)
            layer.draw(generator)
            adapters.append(Adapter(group.original, group.members, layer, sizes.rate))
        return cls._of(network, adapters)

    @classmethod
    def continued(cls, file: LoRAFile, model: nn.Module, *, keys: KeyMap, network: AdapterNetwork) -> AdapterSet:
        """Return trainable adapters with a file's modules, ranks, alphas and weights, and a network's everything else.

        Dropouts, rates, LoRA+ and the limit on norms are the network's; its targets, rank and alpha are not used.

        Raises:
            WeightsError: The file has modules or shapes that the model lacks, or is of another kind than the network.
            ConfigError: A rule matches no module of the file.
        """
        bound, groups = _bound(file, model, keys)
        _check_continuable(bound, network)
        adapters: list[Adapter] = []
        for name, weights in bound.modules.items():
            layer = layer_of(weights, groups[name], dropouts=network.dropouts)
            adapters.append(Adapter(name, groups[name].members, layer, sizes_of(network, name).rate))
        return cls._of(network, adapters)

    @classmethod
    def from_file(cls, file: LoRAFile, model: nn.Module, *, keys: KeyMap, weight: float = 1.0) -> AdapterSet:
        """Return frozen adapters with a file's weights, ranks and strengths, in evaluation mode; not attached.

        Raises:
            WeightsError: The file has modules or shapes that the model lacks.
        """
        bound, groups = _bound(file, model, keys)
        adapters = cls(
            (Adapter(name, groups[name].members, layer_of(w, groups[name])) for name, w in bound.modules.items()),
            weight=weight,
        )
        return adapters.requires_grad_(requires_grad=False).eval()

    @classmethod
    def _of(cls, network: AdapterNetwork, adapters: Iterable[Adapter]) -> AdapterSet:
        return cls(adapters, plus_ratio=getattr(network, "plus_ratio", 1.0), max_norm=network.max_norm)

    @property
    def names(self) -> tuple[str, ...]:
        """The adapted modules by original name."""
        return tuple(self._adapters)

    @property
    def zero_effect(self) -> bool:
        """Whether the adapters change nothing, as before the first training step."""
        return all(adapter.layer.has_no_effect() for adapter in self._adapters.values())

    def groups(self) -> tuple[ParameterGroup, ...]:
        """Return the parameters by learning rate, called as in the reference's logs: ``unet``, ``unet plus``, ..."""
        found: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for adapter in self._adapters.values():
            plus = adapter.layer.plus_parameters() if self._plus_ratio != 1 else ()
            faster = {id(parameter) for parameter in plus}
            for parameter in adapter.layer.parameters():
                found.setdefault((adapter.rate, id(parameter) in faster), []).append(parameter)
        return tuple(
            ParameterGroup(
                name=f"unet{'' if rate == 1 else f' x{rate:g}'}{' plus' if plus else ''}",
                parameters=tuple(parameters),
                rate=rate * (self._plus_ratio if plus else 1.0),
            )
            for (rate, plus), parameters in sorted(found.items(), key=lambda item: (item[0][0] != 1, *item[0]))
        )

    def limit_norms(self) -> WeightNorms | None:
        """Scale down the deltas whose norms have grown beyond the network's limit."""
        if self._max_norm is None:
            return None
        return limit_norms((adapter.layer for adapter in self._adapters.values()), self._max_norm)

    def attach(self, model: nn.Module, *others: nn.Module) -> None:
        """Let every adapted Linear of the model add its delta to its output, until ``detach``.

        ``others`` are models of the same form that share the adapters, as experts may.

        Raises:
            ConfigError: The set is attached already.
            WeightsError: The model lacks one of the Linears.
        """
        if self._handles:
            hint = "detach() it first, or use `with adapters.attached(model):`"
            raise ConfigError("adapters", [Issue("", "the set is attached to a model already", hint)])
        pairs = [
            (linear, self._hook(adapter.layer, linear, part))
            for each in (model, *others)
            for adapter in self._adapters.values()
            for part, linear in enumerate(linears_of(each, adapter.members))
        ]
        self._handles = [linear.register_forward_hook(hook) for linear, hook in pairs]

    def detach(self) -> None:
        """Take the adapters off: the model is again exactly what it was."""
        while self._handles:
            self._handles.pop().remove()

    @contextmanager
    def attached(self, model: nn.Module, *others: nn.Module) -> abc.Generator[None]:
        """Attach for the duration of a ``with`` block."""
        self.attach(model, *others)
        try:
            yield
        finally:
            self.detach()

    @contextmanager
    def switched_off(self) -> abc.Generator[None]:
        """Let the model compute as if nothing were attached, for the duration of a ``with`` block."""
        before, self.weight = self.weight, 0.0
        try:
            yield
        finally:
            self.weight = before

    def to_file(
        self,
        metadata: Mapping[str, str] | None = None,
        *,
        layout: LayoutName | None = None,
        model: Architecture | None = None,
    ) -> LoRAFile:
        """Return a copy of the weights as a file's content, bound to a model if given; ``weight`` is not part of it."""
        modules = {name: adapter.layer.weights() for name, adapter in self._adapters.items()}
        return LoRAFile(modules=modules, metadata=dict(metadata or {}), layout=layout, model=model)

    def load_file(self, file: LoRAFile) -> None:
        """Take over a file's weights and strengths; it must have exactly these modules, kinds and ranks.

        Raises:
            WeightsError: Listing every module that is missing, unknown or of another shape.
        """
        bound = file.bind(self._adapters)
        missing = [name for name in self._adapters if name not in bound.modules]
        if missing:
            raise WeightsError("the LoRA does not fit", [Issue(name, "is missing in the file") for name in missing])
        issues = [
            issue
            for name, adapter in self._adapters.items()
            for issue in _differences(name, bound.modules[name], adapter.layer.weights())
        ]
        if issues:
            raise WeightsError("the LoRA does not fit these adapters", issues)
        for name, adapter in self._adapters.items():
            adapter.layer.load(bound.modules[name])

    def _hook(self, layer: AdapterLayer, linear: nn.Linear, part: int) -> _Hook:
        def change(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return layer.change(linear, inputs[0], output, part, self.weight) if self.weight else output

        return change


def _bound(file: LoRAFile, model: nn.Module, keys: KeyMap) -> tuple[LoRAFile, Mapping[str, Group]]:
    """Return the file by the model's names, with shapes that fit."""
    groups = groups_of(model, keys)
    bound = file.bind(groups, keymap=keys, rows={name: group.rows for name, group in groups.items()})
    issues: list[Issue] = []
    for name, weights in bound.modules.items():
        wanted = (sum(groups[name].rows), groups[name].in_features)
        if weights.shape != wanted:
            issues.append(Issue(name, f"is for a weight of shape {weights.shape}, the model's is {wanted}"))
    if issues:
        raise WeightsError("the LoRA does not fit this model", issues)
    return bound, groups


def _check_continuable(file: LoRAFile, network: AdapterNetwork) -> None:
    others = {weights.kind: name for name, weights in file.modules.items() if weights.kind != network.kind}
    if others:
        hint = "train the kind of network that the file holds"
        issues = [
            Issue(name, f"is {kind} in the file, the network is {network.kind}", hint) for kind, name in others.items()
        ]
        raise WeightsError("the file cannot be trained further", issues)
    idle = list(rule_issues(network.rules, tuple(file.modules)))
    if idle:
        raise ConfigError("network", idle)


def _differences(name: str, found: AdapterWeights, wanted: AdapterWeights) -> Iterable[Issue]:
    theirs, ours = ({n: tuple(t.shape) for n, t in w.tensors().items() if n != "alpha"} for w in (found, wanted))
    if theirs != ours:
        yield Issue(name, f"holds {_listed(theirs)}, here {_listed(ours)}")


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
