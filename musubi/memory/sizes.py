"""How many bytes a model's parts take, read off its meta-device form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

import attrs

from musubi.memory.policy import blocks_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from musubi.architecture import Layout

KEPT_PER_FEATURE = 1.4
"""Bytes that autograd keeps in a block, per byte of its Linears' inputs and outputs, where they can only be estimated.

Counted with saved-tensor hooks on a real video block (width 512, one adapter per Linear): 1.36 under bfloat16 autocast,
1.19 in plain bfloat16, 0.93 in float32. The rest beyond 1 is norms and gates, which compute in float32.
"""


@attrs.frozen(kw_only=True)
class BlockSize:
    """Bytes of one block: ``matrices`` (what can stream), ``rest``, and per token its input and all that it keeps."""

    matrices: int
    rest: int
    boundary: int
    working: int


@attrs.frozen(kw_only=True)
class Sizes:
    """What a model needs at a moment of the fold over the policies, in bytes unless said otherwise.

    ``weights`` and ``transient`` are on the device; ``host`` is the peak while loading, ``pinned`` what stays on the
    host. In training ``kept`` blocks keep all they compute and ``checkpointed`` ones only their ``boundary``; of these
    the boundaries of ``offloaded`` blocks wait in pinned host memory if they have more than ``offloaded_above`` bytes.
    ``streamed`` bytes of weights are copied to the device in every pass.
    """

    blocks: tuple[BlockSize, ...]
    weights: int
    largest_matrix: int
    kept: int
    checkpointed: int = 0
    transient: int = 0
    host: int = 0
    pinned: int = 0
    streamed: int = 0
    offloaded: int = 0
    offloaded_above: int = 0

    def activations(self, tokens: int, *, training: bool) -> int:
        """Estimate the bytes of activations for ``tokens`` tokens (batch times sequence), where no pass is followed."""
        if not self.blocks:
            return self.transient
        largest = max(block.working for block in self.blocks)
        if not training:
            return tokens * largest + self.transient
        boundary = max(block.boundary for block in self.blocks)
        at_once = self.kept + (1 if self.checkpointed else 0)
        return tokens * (self.checkpointed * boundary + at_once * largest) + self.transient


def measure(model: nn.Module, layout: Layout, *, dtype: torch.dtype) -> Sizes:
    """Return the sizes of a prepared and settled model before any other policy; it computes in ``dtype``."""
    blocks = blocks_of(model, layout)
    sizes = tuple(_block(block, dtype) for block in blocks)
    full = [p.numel() * dtype.itemsize for p in chain.from_iterable(b.parameters() for b in blocks)]
    return Sizes(
        blocks=sizes,
        weights=_nbytes(chain(model.parameters(), model.buffers())),
        largest_matrix=max(full, default=0),
        kept=len(sizes),
        host=max((_nbytes([p]) for p in model.parameters() if p.ndim >= 2), default=0),
    )


def _block(block: nn.Module, dtype: torch.dtype) -> BlockSize:
    from torch import nn

    linears = [module for module in block.modules() if isinstance(module, nn.Linear)]
    widths = Counter(linear.in_features for linear in linears)
    width = widths.most_common(1)[0][0] if widths else 0
    features = sum(linear.in_features + linear.out_features for linear in linears)
    return BlockSize(
        matrices=_nbytes(p for p in block.parameters() if p.ndim >= 2),
        rest=_nbytes(p for p in block.parameters() if p.ndim < 2),
        boundary=width * dtype.itemsize,
        working=round(features * dtype.itemsize * KEPT_PER_FEATURE),
    )


def _nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.dtype.itemsize for tensor in tensors)
