"""How LoRA files name their tensors: the layouts that are written, and all that are understood."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import attrs

LayoutName = Literal["reference", "comfy", "diffusers"]
Role = Literal["down", "up", "alpha"]


@attrs.frozen
class KeyLayout:
    """One way of naming: ``prefix`` + module name (its dots replaced by ``joint``) + ``.`` + ``down`` or ``up``.

    Without ``alpha`` the factor alpha / rank is folded into the matrices.
    """

    prefix: str
    joint: str
    down: str
    up: str
    alpha: bool

    def key(self, module: str, role: Role) -> str:
        """Return the tensor name of one role of a module."""
        leaf = {"down": f"{self.down}.weight", "up": f"{self.up}.weight", "alpha": "alpha"}[role]
        return f"{self.prefix}{module.replace('.', self.joint)}.{leaf}"


LAYOUTS: Mapping[LayoutName, KeyLayout] = MappingProxyType(
    {
        "reference": KeyLayout("lora_unet_", "_", "lora_down", "lora_up", alpha=True),
        "comfy": KeyLayout("diffusion_model.", ".", "lora_down", "lora_up", alpha=True),
        "diffusers": KeyLayout("diffusion_model.", ".", "lora_A", "lora_B", alpha=False),
    }
)

_PREFIXES = ("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "lora_unet_")
_SUFFIXES: Mapping[str, Role] = MappingProxyType(
    {
        ".lora_down.weight": "down",
        ".lora_up.weight": "up",
        ".lora_A.weight": "down",
        ".lora_B.weight": "up",
        ".lora_A.default.weight": "down",
        ".lora_B.default.weight": "up",
        ".lora.down.weight": "down",
        ".lora.up.weight": "up",
        ".alpha": "alpha",
    }
)


def split(key: str) -> tuple[str, Role] | None:
    """Return the module name and the role that a tensor name means, or None if it is not one of a LoRA.

    The module name keeps its dots where the layout has them; ``lora_unet_`` names come without (see ``flat``).
    """
    for suffix, role in _SUFFIXES.items():
        if key.endswith(suffix):
            module = key.removesuffix(suffix)
            prefix = next(filter(module.startswith, _PREFIXES), "")
            return module.removeprefix(prefix), role
    return None


def layout_of(key: str) -> LayoutName:
    """Return the layout to which a tensor name belongs, or comes nearest."""
    if key.startswith("lora_unet_"):
        return "reference"
    return "diffusers" if ".lora_A." in key or ".lora_B." in key else "comfy"


def flat(module: str) -> str:
    """Return what identifies a module in every layout: its name with underscores for dots.

    Dotted names become flat ones; a flat one is never parsed back but looked up.
    """
    return module.replace(".", "_")
