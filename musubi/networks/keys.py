"""How LoRA files name their tensors: the layouts that are written, and all that are understood."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

import attrs

from musubi.architecture import LoRALayout

LayoutName = LoRALayout
Role = Literal[
    "alpha",
    "down",
    "up",
    "dora_scale",
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
    "lokr_w1",
    "lokr_w1_a",
    "lokr_w1_b",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
]
"""What a tensor is to its module: a LoRA's matrices, DoRA's magnitudes, or a matrix that LyCORIS names."""


@attrs.frozen
class KeyLayout:
    """One way of naming: ``prefix`` + module name (its dots replaced by ``joint``) + ``.`` + what the role is called.

    Without ``alpha`` the factor alpha / rank is folded into the matrices of a LoRA. With ``library`` modules have the
    names of diffusers' classes instead of the checkpoint's, fused ones in parts.
    """

    prefix: str
    joint: str
    down: str
    up: str
    magnitude: str
    alpha: bool
    library: bool = False

    def key(self, module: str, role: str) -> str:
        """Return the tensor name of one role of a module; LoHa's and LoKr's are the same in every layout."""
        leaf = {"down": f"{self.down}.weight", "up": f"{self.up}.weight", "dora_scale": self.magnitude}.get(role, role)
        return f"{self.prefix}{module.replace('.', self.joint)}.{leaf}"


LAYOUTS: Mapping[LayoutName, KeyLayout] = MappingProxyType(
    {
        "reference": KeyLayout("lora_unet_", "_", "lora_down", "lora_up", "dora_scale", alpha=True),
        "comfy": KeyLayout("diffusion_model.", ".", "lora_down", "lora_up", "dora_scale", alpha=True),
        "diffusers": KeyLayout(
            "transformer.", ".", "lora_A", "lora_B", "lora_magnitude_vector", alpha=False, library=True
        ),
        "peft": KeyLayout("diffusion_model.", ".", "lora_A", "lora_B", "lora_magnitude_vector", alpha=False),
    }
)

_PREFIXES = (
    *("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer."),
    *("lora_unet_", "lora_transformer_", "lycoris_"),
)
_ENDINGS: tuple[tuple[re.Pattern[str], Role], ...] = (
    (re.compile(r"(.+?)(?:\.lora_down|[._]lora\.down|\.lora_linear_layer\.down|\.lora_A(?:\.\w+)?)\.weight"), "down"),
    (re.compile(r"(.+?)(?:\.lora_up|[._]lora\.up|\.lora_linear_layer\.up|\.lora_B(?:\.\w+)?)\.weight"), "up"),
    (re.compile(r"(.+?)\.(?:dora_scale|lora_magnitude_vector(?:\.\w+)?(?:\.weight)?)"), "dora_scale"),
    (re.compile(r"(.+?)\.alpha"), "alpha"),
)
_LYCORIS: tuple[Role, ...] = (
    *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
)


def split(key: str) -> tuple[str, Role] | None:
    """Return the module name and the role that a tensor name means, or None if it is not one of an adapter.

    The module name keeps its dots where the layout has them; ``lora_unet_`` names come without (see ``flat``).
    """
    module, _, leaf = key.rpartition(".")
    for known in _LYCORIS:
        if leaf == known and module:
            return bare(module), known
    for pattern, role in _ENDINGS:
        match = pattern.fullmatch(key)
        if match:
            return bare(match[1]), role
    return None


def bare(module: str) -> str:
    """Return a module name without the prefix that layouts put before it."""
    prefix = next(filter(module.startswith, _PREFIXES), "")
    return module.removeprefix(prefix)


def layout_of(keys: Iterable[str]) -> LayoutName:
    """Return the layout to which a file's tensor names belong, or come nearest."""
    names = tuple(keys)
    if any(name.startswith(("lora_unet_", "lora_transformer_", "lycoris_")) for name in names):
        return "reference"
    halves = any(".lora_A." in name or ".lora_B." in name for name in names)
    if halves and not any(name.endswith(".alpha") for name in names):
        return "peft" if any(name.startswith("diffusion_model.") for name in names) else "diffusers"
    return "comfy"


def flat(module: str) -> str:
    """Return what identifies a module in every layout: its name with underscores for dots.

    Dotted names become flat ones; a flat one is never parsed back but looked up.
    """
    return module.replace(".", "_")
