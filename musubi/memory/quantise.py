"""Policies that store frozen weights in fewer bits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from musubi.core.errors import Issue, WeightsError
from musubi.core.fields import field, one_of
from musubi.memory.policy import FitContext, MemoryPolicy, Phase

if TYPE_CHECKING:
    from torch import Tensor, nn

    from musubi.architecture import Layout, WeightHook
    from musubi.keymap import KeyMap
    from musubi.memory.sizes import Sizes

BLOCK = 64
"""Inputs of a row that share a scale; part of the format, so not an option."""


@attrs.frozen(kw_only=True)
class FP8Scaled(MemoryPolicy):
    """Store the blocks' weights as float8 (e4m3) with a scale for each 64 inputs: half the bytes of bfloat16.

    The bits are those of the reference's ``--fp8_base --fp8_scaled``. The weights come back to full precision for each
    use, so speed is that of the compute dtype or a little less; the relative error of a weight is near 2.5 %.
    ``mode`` ``channel`` and ``tensor`` share a scale over a row or over the whole weight.

    Example:
        >>> from musubi import FP8Scaled
        >>> FP8Scaled().to_dict()
        {'kind': 'fp8_scaled', 'mode': 'block'}
    """

    kind: ClassVar[str] = "fp8_scaled"
    changes_weights: ClassVar[bool] = True
    phase: ClassVar[Phase] = Phase.QUANTISE

    mode: Literal["block", "channel", "tensor"] = field(default="block", check=one_of("block", "channel", "tensor"))

    def check(self, context: FitContext) -> Iterable[Issue]:
        if not context.layout.quantise:
            yield Issue("", f"{context.title} names no weights that can be quantised", "leave this policy out")

    def prepare(self, model: nn.Module, keys: KeyMap, layout: Layout) -> None:
        from torch import nn

        from musubi.memory.quant_linear import QuantLinear

        for name, module in list(model.named_modules()):
            original, _ = keys.to_original(name)
            if type(module) is nn.Linear and quantises(f"{original}.weight", layout):
                owner, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(owner), leaf, QuantLinear.of(module, mode=self.mode, block=BLOCK))

    def weight_hook(self, keys: KeyMap, layout: Layout) -> WeightHook | None:
        from musubi.memory import fp8

        def quantise(name: str, tensor: Tensor) -> Tensor | Mapping[str, Tensor]:
            if tensor.ndim != 2 or not quantises(name, layout):
                return tensor
            if tensor.dtype.itemsize == 1:
                message = f"is stored in 8 bits already ({tensor.dtype})"
                raise WeightsError("cannot quantise", [Issue(name, message, "leave FP8Scaled out for this checkpoint")])
            weight, scale = fp8.quantise(tensor, mode=self.mode, block=BLOCK)
            return {"weight": weight, "scale": scale}

        return quantise

    def estimate(self, sizes: Sizes) -> Sizes:
        """Add the one dequantised matrix that exists while it is used; the stored bytes are counted already."""
        return attrs.evolve(sizes, transient=sizes.transient + sizes.largest_matrix)


def quantises(name: str, layout: Layout) -> bool:
    """Tell whether the parameter of this ORIGINAL name is stored in fewer bits: a weight that the layout picks.

    A bias never is. Source: musubi-tuner v0.2.13, ``load_safetensors_with_fp8_optimization``.
    """
    module, dot, leaf = name.rpartition(".")
    if not dot or leaf != "weight":
        return False
    return _matches(module, layout.quantise) and not _matches(module, layout.keep)


def _matches(module: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, module) for pattern in patterns)
