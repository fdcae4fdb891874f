"""What watches for tensors of tokens by tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Squares(TorchDispatchMode):
    """Notes every operation whose result has ``tokens`` or more along two of its axes, in forward and backward."""

    def __init__(self, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[str, tuple[int, ...]]] = []
        self._tokens = tokens

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor) and sum(length >= self._tokens for length in leaf.shape) > 1:
                self.found.append((str(func), tuple(leaf.shape)))
        return result
