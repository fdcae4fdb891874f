"""Low-rank adaptation: delta = alpha / rank * up @ down (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.networks.network import Network

if TYPE_CHECKING:
    from torch import Generator, nn

    from musubi.networks.layers import LoRALayer


@attrs.frozen(kw_only=True)
class LoRA(Network):
    """Train two thin matrices for each adapted module.

    Example:
        >>> from musubi.networks.lora import LoRA
        >>> LoRA(rank=32, alpha=16).strength
        0.5
    """

    kind: ClassVar[str] = "lora"

    def layer(self, group: Sequence[nn.Linear], *, rank: int, generator: Generator) -> LoRALayer:
        """Return a fresh LoRA layer: ``down`` drawn, ``up`` zero."""
        from musubi.networks.layers import LoRALayer

        rows = tuple(linear.out_features for linear in group)
        alpha = self.alpha if self.alpha is not None else float(rank)
        layer = LoRALayer(group[0].in_features, rows, rank=rank, alpha=alpha, dropout=self.dropout)
        layer.draw(generator)
        return layer
