"""Which Linears of a model make one original module, and which of these are adapted."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from torch import nn

from musubi.architecture import Layout
from musubi.core.errors import ConfigError, Issue, WeightsError
from musubi.keymap import KeyMap
from musubi.networks.network import AdapterNetwork
from musubi.networks.rules import Sizes, rule_issues, sizes


@attrs.frozen
class Group:
    """The library's Linears (``members``, in row order) that are one module, ``original``, in the checkpoint."""

    original: str
    members: tuple[str, ...]
    in_features: int
    rows: tuple[int, ...]


def groups_of(model: nn.Module, keys: KeyMap) -> dict[str, Group]:
    """Return all Linears of a model, on any device, by original name and in the model's order."""
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {original: _group(original, members, linears) for original, members in keys.groups(linears).items()}


def shapes_of(model: nn.Module, keys: KeyMap) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of all Linears of a model by original name, in the model's order."""
    return {name: (group.in_features, sum(group.rows)) for name, group in groups_of(model, keys).items()}


def targeted(
    model: nn.Module, network: AdapterNetwork, *, keys: KeyMap, layout: Layout
) -> tuple[tuple[Group, Sizes], ...]:
    """Return the groups that a network adapts, and the sizes of each; raises ``ConfigError`` for idle patterns."""
    groups = groups_of(model, keys)
    chosen = network.targets.choose(groups, default=layout.adapters, presets=layout.presets)
    issues = list(rule_issues(network.rules, chosen))
    if issues:
        raise ConfigError("network", issues)
    return tuple((groups[name], sizes_of(network, name)) for name in chosen)


def sizes_of(network: AdapterNetwork, name: str) -> Sizes:
    """Return what a network gives a module."""
    return sizes(network.rules, name, rank=network.rank, strength=network.strength)


def linears_of(model: nn.Module, members: Sequence[str]) -> tuple[nn.Linear, ...]:
    """Return a group's Linears in a model.

    Raises:
        WeightsError: The model has no such Linear.
    """
    found = {name: _linear(model, name) for name in members}
    absent = [name for name, linear in found.items() if linear is None]
    if absent:
        raise WeightsError("the adapters do not fit this model", [Issue(name, "is no Linear of it") for name in absent])
    return tuple(linear for linear in found.values() if linear is not None)


def _linear(model: nn.Module, name: str) -> nn.Linear | None:
    """Return a Linear by its name, None if there is none; looking at all modules for each would take seconds."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return None
    return module if isinstance(module, nn.Linear) else None


def _group(original: str, members: tuple[str, ...], linears: dict[str, nn.Linear]) -> Group:
    widths = {linears[name].in_features for name in members}
    assert len(widths) == 1, f"{original}: the members differ in input width, {widths}"
    return Group(original, members, widths.pop(), tuple(linears[name].out_features for name in members))
