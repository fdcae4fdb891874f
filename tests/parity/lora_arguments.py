"""The reference's network arguments as ours."""

from __future__ import annotations

import ast
import re

import pytest
import torch

from musubi.core.errors import ConfigError
from musubi.networks.adapters import AdapterSet
from musubi.networks.groups import groups_of
from musubi.networks.lora import LoRA
from musubi.networks.network import AdapterNetwork
from musubi.networks.targets import Targets
from tests.parity.tiny_models import TinyModel

BLOCKS = re.compile(r"(\w*blocks)\.")
"""The reference looks for modules inside of blocks only; ours can adapt embedders and heads, where ``include`` does."""


def targets_of(arguments: dict[str, str], arch: str) -> Targets:
    """Return what the reference's network arguments mean.

    For FLUX, patterns of the user's take the place of those that leave the modulation out (spec/training.md 3.2); its
    preset with modulation is that set.
    """
    lists = {name: _valid(ast.literal_eval(arguments.get(f"{name}_patterns", "[]"))) for name in ("include", "exclude")}
    preset = "with_modulation" if arch == "flux_kontext" and "exclude_patterns" in arguments else None
    return Targets(preset=preset, include=lists["include"], exclude=lists["exclude"])


def _valid(patterns: list[str]) -> tuple[str, ...]:
    """Return those that are regular expressions; others must be refused, where the reference logs and ignores them."""
    kept: list[str] = []
    for one in patterns:
        try:
            re.compile(one)
        except re.error:
            with pytest.raises(ConfigError, match="is not a regular expression"):
                Targets(exclude=(one,))
        else:
            kept.append(one)
    return tuple(kept)


def create_adapters(network: AdapterNetwork, tiny: TinyModel) -> AdapterSet:
    spec, generator = tiny.architecture, torch.Generator().manual_seed(0)
    return AdapterSet.create(network, tiny.model, keys=spec.keys, layout=spec.layout, generator=generator)


def without_idle(targets: Targets, tiny: TinyModel) -> Targets:
    """Return the patterns that match something; the others must be refused, which the reference does not do."""
    idle = [p for p in (*targets.include, *targets.exclude) if not _matches_something(p, tiny)]
    if idle:
        with pytest.raises(ConfigError, match="matches no module"):
            create_adapters(LoRA(targets=targets), tiny)
    return Targets(
        preset=targets.preset,
        include=tuple(p for p in targets.include if p not in idle),
        exclude=tuple(p for p in targets.exclude if p not in idle),
    )


def _matches_something(pattern: str, tiny: TinyModel) -> bool:
    return any(re.fullmatch(pattern, name) for name in groups_of(tiny.model, tiny.architecture.keys))
