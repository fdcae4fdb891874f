"""What programs make of a LoRA file's tensor names: diffusers by its own loader, others by their published rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import attrs
from torch import Tensor

from musubi.architecture import Architecture
from musubi.core.errors import Issue
from musubi.networks.binding import ModelNames
from musubi.networks.keys import LAYOUTS, KeyLayout, LayoutName, flat
from musubi.networks.weights import AdapterWeights

_LONGEST = 160


@attrs.frozen(kw_only=True, eq=False)
class Offer:
    """A file as programs see it: its modules by original name, and the tensors under a layout's names."""

    model: Architecture
    names: ModelNames
    layout: LayoutName
    modules: Mapping[str, AdapterWeights]
    tensors: Mapping[str, Tensor]

    @property
    def form(self) -> KeyLayout:
        """How the layout names tensors."""
        return LAYOUTS[self.layout]

    def prefixes(self, original: str) -> tuple[str, ...]:
        """Return what the tensor names of a module begin with: one, or one for each of its parts."""
        members = self.names.parts(original) if self.form.library else (original,)
        return tuple(self.form.key(name, "alpha").removesuffix(".alpha") for name in members)


Reasons = dict[str, str]
"""Why a program does not take a module, by original name; what is not in it is taken."""

Consumer = Callable[[Offer], "Reasons | None"]
"""Judges a file; None where the program does not have this model at all."""


def diffusers(offer: Offer) -> Reasons | None:
    """Ask the pipeline's ``lora_state_dict``, and look for every module's tensors among what it returns."""
    import diffusers as library

    name = offer.model.interchange.diffusers
    if name is None:
        return None
    try:
        found = getattr(library, name).lora_state_dict(dict(offer.tensors))
    except Exception as error:  # noqa: BLE001  (whatever it raises is its answer)
        return dict.fromkeys(offer.modules, f"its loader stops with {type(error).__name__}: {_short(str(error))}")
    return _without_none({original: _lost(offer, original, found) for original in offer.modules})


def comfy(offer: Offer) -> Reasons | None:
    """Apply the rules of ComfyUI's ``comfy/lora.py`` and ``comfy/weight_adapter`` (as of 2025-2026)."""
    if not offer.model.interchange.comfy:
        return None
    known = frozenset(_comfy_names(offer))

    def reason(original: str, weights: AdapterWeights) -> str | None:
        if not known.issuperset(offer.prefixes(original)):
            return "it does not know modules by such names"
        if weights.kind == "dora" and offer.form.magnitude != "dora_scale":
            return "it reads DoRA's magnitudes as dora_scale only and would take a plain LoRA"
        return None

    return _without_none({original: reason(original, weights) for original, weights in offer.modules.items()})


def musubi(offer: Offer) -> Reasons | None:
    """Compare the shapes with the published model's; every layout is read."""

    def reason(original: str, weights: AdapterWeights) -> str | None:
        inputs, outputs = offer.names.sizes[original]
        if weights.shape[:2] == (outputs, inputs):
            return None
        return f"it is for a weight of shape {weights.shape}, the published model's is {(outputs, inputs)}"

    return _without_none({original: reason(original, weights) for original, weights in offer.modules.items()})


def reference(offer: Offer) -> Reasons | None:
    """Apply musubi-tuner's rules: its own names only, LoRA in every version, LoHa and LoKr in the newer ones."""
    if offer.layout != "reference":
        return dict.fromkeys(offer.modules, "it merges lora_unet_ names only: save with layout='reference'")
    return {original: "it has no DoRA" for original, weights in offer.modules.items() if weights.kind == "dora"}


CONSUMERS: Mapping[str, Consumer] = MappingProxyType(
    {"diffusers": diffusers, "ComfyUI": comfy, "musubi": musubi, "musubi-tuner": reference}
)


def refusals(offer: Offer, reasons: Reasons) -> tuple[Issue, ...]:
    """Return an issue for every module that is not taken, under its first tensor's name."""
    return tuple(Issue(offer.prefixes(original)[0], reason) for original, reason in reasons.items())


def _lost(offer: Offer, original: str, found: Mapping[str, Tensor]) -> str | None:
    """Return what of a module is not among diffusers' tensors, None if all is."""
    weights = offer.modules[original]
    if weights.kind not in {"lora", "dora"}:
        return f"it loads LoRA and DoRA, no {weights.kind}: resized(rank=...) makes a LoRA"
    inputs, outputs = weights.shape[1], weights.shape[0]
    members = offer.names.parts(original)
    for member, rows in zip(members, offer.names.rows(original, inputs, outputs), strict=True):
        down, up = (found.get(f"transformer.{member}.lora_{half}.weight") for half in "AB")
        if down is None or up is None:
            return f"its loader returns nothing for {member}"
        if down.shape[1] != inputs or up.shape[0] != rows:
            return f"its loader returns other shapes for {member}"
        if weights.kind == "dora" and f"transformer.{member}.lora_magnitude_vector" not in found:
            return "its loader drops DoRA's magnitudes"
    return None


def _comfy_names(offer: Offer) -> Iterable[str]:
    rules = offer.model.interchange.comfy_names
    for original in offer.names.originals:
        own = original
        for text, replacement in rules.own:
            own = own.replace(text, replacement)
        yield f"lora_unet_{flat(own)}"
        yield f"diffusion_model.{own}"
        yield from (f"{prefix}{original}" for prefix in rules.prefixes)
        if rules.library:
            yield from (f"transformer.{part}" for part in offer.names.parts(original))


def _without_none(reasons: Mapping[str, str | None]) -> Reasons:
    return {original: reason for original, reason in reasons.items() if reason is not None}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
