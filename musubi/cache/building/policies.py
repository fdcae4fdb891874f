"""The memory policies that act in the encoders of a build, and what of them belongs to what is encoded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from musubi.architecture import Architecture
from musubi.cache.records import Plain
from musubi.core.errors import ConfigError, Issue
from musubi.core.spec import Spec
from musubi.memory.components import policies_within
from musubi.memory.policy import FitContext, MemoryPolicy, Placement, arrange, check_machine

if TYPE_CHECKING:
    import torch

Acting = Mapping[str, tuple[MemoryPolicy, ...]]
"""The policies that act in the components of the model's stages, in order, by the component's name."""


@attrs.frozen(kw_only=True)
class _Told(Spec):
    """What a manifest tells of the policies; the form of a file that they are read from."""

    policies: Mapping[str, tuple[MemoryPolicy, ...]]


def check_memory(asked: object, model: Architecture) -> None:
    """Refuse policies that do not act in the model's encoders.

    Raises:
        ConfigError: With every problem, under ``memory[i]``.
    """
    policies = () if asked is None else asked
    if not isinstance(policies, Sequence) or not all(isinstance(policy, MemoryPolicy) for policy in policies):
        message, hint = f"must be a sequence of policies, got {asked!r}", "memory=(TextEncoderMemory(...),)"
        raise ConfigError("Cache.build", [Issue("memory", message, hint)])
    hint = "wrap it for the text encoders, TextEncoderMemory(policies=(...,)), or leave it out"
    issues = [
        Issue(f"memory[{index}]", f"{type(policy).__name__} is for the denoiser, which caching does not load", hint)
        for index, policy in enumerate(policies)
        if not policy.for_components
    ]
    if issues:
        raise ConfigError("Cache.build", issues)
    arrange(policies, FitContext.of(model, training=False))


def check_encoders(asked: Sequence[MemoryPolicy] | None, model: Architecture, *, device: torch.device) -> None:
    """Refuse policies for which something is missing on this machine, before anything is encoded.

    Raises:
        ConfigError: With all that is missing, under ``memory[i]``.
    """
    import torch

    dtype = torch.float32  # of what acts in an encoder nothing depends on it
    check_machine(
        asked or (), Placement(title=model.title, layout=model.layout, device=device, dtype=dtype, training=False)
    )


def acting(asked: Sequence[MemoryPolicy] | None, before: object, model: Architecture) -> Acting:
    """Return what was asked for, else what the encoders of an earlier build were changed by (``told`` in a manifest).

    Raises:
        ConfigError: The earlier build's policies are not known here.
    """
    if asked is None:
        return _remembered(before)
    names = sorted({name for stage in model.stages for name in stage.components})
    found = {name: policies_within(asked, model.component(name)) for name in names}
    return {name: policies for name, policies in found.items() if policies}


def told(acting: Acting) -> dict[str, list[Plain]]:
    """Return the policies that change what is encoded as plain values; empty if there are none."""
    changing = {name: _changing(policies) for name, policies in acting.items()}
    return {name: [policy.to_dict() for policy in policies] for name, policies in changing.items() if policies}


def identities(components: Mapping[str, str], acting: Acting) -> dict[str, str]:
    """Return the identities of components with the policies that change what each of them encodes."""
    changes = told(acting)
    return {
        name: f"{identity}-{json.dumps(changes[name], sort_keys=True)}" if name in changes else identity
        for name, identity in components.items()
    }


def _changing(policies: Sequence[MemoryPolicy]) -> list[MemoryPolicy]:
    return [policy for policy in policies if policy.changes_weights or policy.changes_results]


def _remembered(before: object) -> Acting:
    try:
        return _Told.from_dict({"policies": before or {}}).policies
    except ConfigError as error:
        message = "the cache was built with memory policies that are not known here"
        hint = "say memory=(...) again, or memory=() to encode anew without any"
        raise ConfigError("Cache.build", [Issue("memory", message, hint), *error.issues]) from error
