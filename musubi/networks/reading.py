"""Tensors of a LoRA file gathered by module, whatever layout they are in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from musubi.core.errors import Issue, WeightsError, shown
from musubi.networks.keys import Role, split
from musubi.networks.peft_settings import PeftSettings
from musubi.networks.weights import AdapterWeights, LoHaWeights, LoKrWeights, LoRAWeights

_HADAMARD: tuple[Role, ...] = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_CHAINED: tuple[tuple[Role, Role], ...] = (
    ("up", "down"),
    ("hada_w1_a", "hada_w1_b"),
    ("hada_w2_a", "hada_w2_b"),
    ("lokr_w1_a", "lokr_w1_b"),
    ("lokr_w2_a", "lokr_w2_b"),
)
"""Pairs of factors: the columns of the first are the rows of the second."""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all tensors and the metadata of a file; raises ``WeightsError`` naming it."""
    if path.suffix != ".safetensors":
        hint = "convert .pt and .ckpt files with a tool you trust: they can run code"
        raise WeightsError("cannot read the LoRA", [Issue(shown(path), "is not a .safetensors file", hint)])
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return tensors, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        hint = "check the path; a damaged file must be downloaded or saved again"
        raise WeightsError("cannot read the LoRA", [Issue(shown(path), str(error), hint)]) from error


def modules_in(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, where: str) -> dict[str, AdapterWeights]:
    """Return the weights of every module.

    Raises:
        WeightsError: A tensor is none of a LoRA's, a matrix lacks its partner, or two do not fit together.
    """
    gathered: dict[str, dict[Role, Tensor]] = {}
    foreign: list[str] = []
    for key, tensor in tensors.items():
        parts = split(key)
        if parts is None:
            foreign.append(key)
        else:
            gathered.setdefault(parts[0], {})[parts[1]] = tensor
    issues = [*_foreign_issues(foreign, where), *_module_issues(gathered, where)]
    if issues or not gathered:
        nothing = Issue(where, "holds no tensors", "was training stopped too early?")
        raise WeightsError("cannot read the LoRA", issues or [nothing])
    settings = PeftSettings.of(metadata)
    return {name: _weights(name, roles, settings) for name, roles in gathered.items()}


def _weights(name: str, roles: Mapping[Role, Tensor], settings: PeftSettings) -> AdapterWeights:
    """Return the weights of a module whose tensors were found to be complete."""
    found = roles.get("alpha")
    if "hada_w1_a" in roles:
        alpha = torch.tensor(float(roles["hada_w1_b"].shape[0])) if found is None else found
        return LoHaWeights(**_named(roles, "hada_"), alpha=alpha)
    if any(role.startswith("lokr_") for role in roles):
        parts = _named(roles, "lokr_")
        inner = parts.get("w2_b", parts.get("w1_b"))
        alpha = torch.tensor(1.0 if inner is None else float(inner.shape[0])) if found is None else found
        return LoKrWeights(**parts, alpha=alpha)
    rank = roles["down"].shape[0]
    told = settings.alpha_of(name, rank)
    fallback = torch.tensor(float(rank) if told is None else told)
    return LoRAWeights(roles["down"], roles["up"], fallback if found is None else found, roles.get("dora_scale"))


def _named(roles: Mapping[Role, Tensor], prefix: str) -> dict[str, Tensor]:
    return {role.removeprefix(prefix): tensor for role, tensor in roles.items() if role.startswith(prefix)}


def _foreign_issues(foreign: list[str], where: str) -> list[Issue]:
    if not foreign:
        return []
    more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    if any(key.endswith((".diff", ".diff_b")) for key in foreign):
        hint = "merge it into the base model with the program it was made for; adapters are low-rank factors"
        return [Issue(where, f"tensor {foreign[0]!r}{more} is a whole difference of weights", hint)]
    hint = "understood are lora_down/lora_up/alpha, lora_A/lora_B, dora_scale, hada_* (LoHa) and lokr_* (LoKr)"
    return [Issue(where, f"tensor {foreign[0]!r}{more} is not a LoRA's", hint)]


def _module_issues(gathered: Mapping[str, Mapping[Role, Tensor]], where: str) -> list[Issue]:
    issues: list[Issue] = []
    for name, roles in gathered.items():
        missing = _missing(roles)
        if missing:
            issues.append(Issue(where, f"{name} lacks its {' and '.join(missing)} matrix", "the file is incomplete"))
            continue
        try:
            _weights(name, roles, PeftSettings()).shape  # noqa: B018  (the factors are multiplied in thought)
            wrong = _mismatch(roles)
        except (IndexError, RuntimeError):
            wrong = _shapes(roles)
        if wrong:
            issues.append(Issue(where, f"the matrices of {name} do not fit together: {wrong}"))
    return issues


def _missing(roles: Mapping[Role, Tensor]) -> list[str]:
    """Return what a module needs beside what it has."""
    if any(role.startswith("hada_") for role in roles):
        return [role for role in _HADAMARD if role not in roles]
    if any(role.startswith("lokr_") for role in roles):
        return [side for side in ("lokr_w1", "lokr_w2") if not ({side} & roles.keys() or _both(roles, side))]
    return [role for role in ("down", "up") if role not in roles]


def _both(roles: Mapping[Role, Tensor], side: str) -> bool:
    return {f"{side}_a", f"{side}_b"} <= roles.keys()


def _mismatch(roles: Mapping[Role, Tensor]) -> str:
    """Return the shapes of two matrices that should share a dimension and do not."""
    for left, right in _CHAINED:
        if left in roles and right in roles and roles[left].shape[1] != roles[right].shape[0]:
            return f"{left} {tuple(roles[left].shape)}, {right} {tuple(roles[right].shape)}"
    scale = roles.get("dora_scale")
    if scale is not None and "up" in roles and scale.numel() != roles["up"].shape[0]:
        return f"up {tuple(roles['up'].shape)}, dora_scale {tuple(scale.shape)}"
    return ""


def _shapes(roles: Mapping[Role, Tensor]) -> str:
    return ", ".join(f"{role} {tuple(tensor.shape)}" for role, tensor in roles.items() if role != "alpha")
