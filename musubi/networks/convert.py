"""One module's adapter as a layout keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from musubi.networks.keys import KeyLayout
from musubi.networks.weights import AdapterWeights, LoRAWeights

Precision = Literal["float32", "float16", "bfloat16", "as is"]
"""Of the matrices in a file; alpha is always float32, and ``as is`` changes nothing."""


def written(weights: AdapterWeights, form: KeyLayout, precision: Precision) -> Mapping[str, Tensor]:
    """Return a module's tensors by role: alpha folded in where the layout has none, rounded once and after that."""
    if precision != "as is":
        weights = weights.to(torch.float32)
    folded = isinstance(weights, LoRAWeights) and not form.alpha
    if isinstance(weights, LoRAWeights) and folded:
        weights = weights.folded()
    tensors = cast(weights, precision).tensors()
    if folded:
        del tensors["alpha"]
    if "dora_scale" in tensors:
        tensors["dora_scale"] = tensors["dora_scale"].reshape((-1, 1) if form.alpha else (-1,))
    return tensors


def cast(weights: AdapterWeights, precision: Precision) -> AdapterWeights:
    """Return the matrices in a precision."""
    return weights if precision == "as is" else weights.to(getattr(torch, precision))
