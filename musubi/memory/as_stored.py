"""Keeping the matrices that a file holds in 8 bits already as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.memory.policy import MemoryPolicy, Phase

if TYPE_CHECKING:
    from torch import Tensor, nn

    from musubi.architecture import Layout, StoredWeight, WeightHook
    from musubi.keymap import KeyMap
    from musubi.memory.formats import WeightFormat
    from musubi.memory.sizes import Sizes


@attrs.frozen(kw_only=True)
class AsStored(MemoryPolicy):
    """Keep what a file has quantised in the file's own bits: not a user's choice, but what loading does of itself.

    ``stored`` names the matrices by original module; those that the layout does not quantise are read into the model's
    own type. Those in ``merged`` get a LoRA on their way in and are quantised anew in other blocks than the file's, as
    loading takes what has the file's form for what is to stay as it is: with a scale for each 64 inputs, or each 32.
    Where neither divides the inputs, they stay in the model's type.
    """

    kind: ClassVar[str] = "as_stored"
    phase: ClassVar[Phase] = Phase.QUANTISE

    stored: Mapping[str, StoredWeight] = attrs.field(factory=dict)
    merged: frozenset[str] = frozenset()

    def prepare(self, model: nn.Module, keys: KeyMap, layout: Layout) -> None:
        from torch import nn

        from musubi.memory.quant_linear import QuantLinear
        from musubi.memory.quantise import quantises, replace

        for name, module in list(model.named_modules()):
            original, _ = keys.to_original(name)
            found = self.stored.get(original)
            chosen = quantises(f"{original}.weight", layout)
            if found is None or not chosen or type(module) is not nn.Linear:
                continue
            if original not in self.merged:
                kept = as_it_is(found, rows=module.out_features)
                replace(model, name, QuantLinear.of(module, format=kept))
            elif (format := anew(found, inputs=module.in_features)) is not None:
                replace(model, name, QuantLinear.of(module, format=format))

    def weight_hook(self, keys: KeyMap, layout: Layout) -> WeightHook | None:
        if not self.merged:
            return None
        from musubi.memory.quantise import quantises

        def quantise(name: str, tensor: Tensor) -> Tensor | Mapping[str, Tensor]:
            module, _, leaf = name.rpartition(".")
            found = self.stored.get(module) if module in self.merged and quantises(name, layout) else None
            format = None if found is None or leaf != "weight" else anew(found, inputs=tensor.shape[1])
            if format is None:
                return tensor
            weight, scale = format.quantise(tensor)
            return {"weight": weight} if scale is None else {"weight": weight, "scale": scale}

        return quantise

    def estimate(self, sizes: Sizes) -> Sizes:
        return attrs.evolve(sizes, transient=sizes.transient + sizes.largest_matrix)


def as_it_is(found: StoredWeight, *, rows: int) -> WeightFormat:
    """Return the format of ``rows`` rows of a matrix as its file keeps it."""
    import torch

    from musubi.memory.formats import FP8, Cast, Int8

    kind: torch.dtype = getattr(torch, found.dtype)
    if found.scale is None:
        return Cast(kind)
    shape = (rows, *found.scale[1:]) if len(found.scale) > 1 else found.scale
    if kind == torch.int8:
        return Int8(scale_shape=shape, scale_dtype=torch.float32)
    return FP8(kind=kind, scale_shape=shape, scale_dtype=torch.float32)


def anew(found: StoredWeight, *, inputs: int) -> WeightFormat | None:
    """Return the format in which a matrix is kept after something was added to it; None if there is none but wider."""
    import torch

    from musubi.memory.formats import BLOCK, FP8, Int8

    blocks = found.scale[1] if found.scale is not None and len(found.scale) == 3 else 0
    block = next((size for size in (BLOCK, BLOCK // 2) if inputs % size == 0 and inputs // size != blocks), None)
    if block is None:
        return None
    kind: torch.dtype = getattr(torch, found.dtype)
    return Int8(block=block) if kind == torch.int8 else FP8(kind=kind, block=block)
