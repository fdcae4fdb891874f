"""Tensors of a LoRA file gathered by module, whatever layout they are in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from musubi.core.errors import Issue, WeightsError, shown
from musubi.networks.keys import Role, split
from musubi.networks.weights import LoRAWeights

PEFT_METADATA = "lora_adapter_metadata"
"""The metadata entry in which diffusers keeps alpha; it is taken over into the weights and dropped."""


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


def modules_in(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, where: str) -> dict[str, LoRAWeights]:
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
    alpha = _peft_alpha(metadata)
    return {name: _weights(roles, alpha) for name, roles in gathered.items()}


def _weights(roles: Mapping[Role, Tensor], peft_alpha: float | None) -> LoRAWeights:
    rank = float(roles["down"].shape[0])
    fallback = torch.tensor(rank if peft_alpha is None else peft_alpha)
    return LoRAWeights(roles["down"], roles["up"], roles.get("alpha", fallback))


def _peft_alpha(metadata: Mapping[str, str]) -> float | None:
    """Return the alpha that diffusers keeps in a JSON entry instead of tensors."""
    try:
        settings = json.loads(metadata.get(PEFT_METADATA, "{}"))
    except json.JSONDecodeError:
        return None
    found = settings.get("transformer.lora_alpha", settings.get("lora_alpha")) if isinstance(settings, dict) else None
    return float(found) if isinstance(found, int | float) else None


def _foreign_issues(foreign: list[str], where: str) -> list[Issue]:
    if not foreign:
        return []
    more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    hint = "understood are lora_down/lora_up/alpha and lora_A/lora_B"
    return [Issue(where, f"tensor {foreign[0]!r}{more} is not a LoRA's", hint)]


def _module_issues(gathered: Mapping[str, Mapping[Role, Tensor]], where: str) -> list[Issue]:
    issues: list[Issue] = []
    for name, roles in gathered.items():
        missing = [role for role in ("down", "up") if role not in roles]
        if missing:
            issues.append(Issue(where, f"{name} lacks its {' and '.join(missing)} matrix", "the file is incomplete"))
        elif roles["up"].shape[1] != roles["down"].shape[0]:
            shapes = f"up {tuple(roles['up'].shape)}, down {tuple(roles['down'].shape)}"
            issues.append(Issue(where, f"the matrices of {name} do not fit together: {shapes}"))
    return issues
