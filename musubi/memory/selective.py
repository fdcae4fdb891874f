"""Which results a checkpointed block keeps although all others are computed again."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]
"""What ``checkpoint(context_fn=)`` takes."""

OPERATORS: Mapping[str, str] = MappingProxyType(
    {
        "attention": (
            r"aten::_scaled_dot_product_(flash|efficient|cudnn)_attention"
            r"|aten::_scaled_dot_product_(flash_attention_for_cpu|fused_attention_overrideable)"
            r"|aten::_(flash|efficient|cudnn)_attention_forward"
            r"|torch_attn::_varlen_attn"
            r"|\w*flash_attn\w*::(_flash_attn_(varlen_)?forward|(varlen_)?fwd)"
            r"|xformers::efficient_attention_forward_cutlass|xformers_flash3?::flash_fwd"
        ),
        "matmul": r"aten::(mm|addmm|bmm|baddbmm)",
    }
)
"""Patterns of operators' names, full match, by what they compute; those of packages count where they are registered.

torch's ``_int_mm`` and ``_scaled_mm`` are not among the products: what they return is rescaled and narrowed, so that
the result to keep would be of twice its final size, and is the cheapest of all to compute again.
"""

_THIN = 8
"""How many times as wide as its inner dimension a product may be to be kept."""


def keeping(kinds: Collection[str]) -> Contexts:
    """Return what lets checkpointing keep the results of some kinds of ``OPERATORS``."""
    pattern = re.compile("|".join(OPERATORS[kind] for kind in kinds))

    def policy(_: object, operator: Any, *args: Any, **__: Any) -> CheckpointPolicy:
        kept = pattern.fullmatch(operator.name()) is not None and not _is_thin(operator.name(), args)
        return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        first, again = create_selective_checkpoint_contexts(policy)
        return first, again

    return contexts


def _is_thin(name: str, args: tuple[Any, ...]) -> bool:
    """Tell whether a product's inner dimension is small beside its width, as that of an adapter's second matrix.

    Such a product costs little to compute again, and as much to keep as the product of the layer itself.
    """
    if not re.fullmatch(OPERATORS["matmul"], name):
        return False
    matrix: Tensor = [arg for arg in args if isinstance(arg, Tensor)][-1]
    inner, width = matrix.shape[-2:]
    return width > _THIN * inner
