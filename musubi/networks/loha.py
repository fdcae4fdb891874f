"""LoHa: the product, by elements, of two low-rank matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.networks.network import AdapterNetwork

if TYPE_CHECKING:
    from torch import nn

    from musubi.networks.loha_layer import LoHaLayer
    from musubi.networks.rules import Sizes


@attrs.frozen(kw_only=True)
class LoHa(AdapterNetwork):
    """Train four thin matrices for each adapted module, whose delta may have the square of their rank.

    ``delta = alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b)`` (Hyeon-Woo et al. 2022, https://arxiv.org/abs/2108.06098).
    Twice LoRA's parameters for a rank; the delta is built as a whole for every step, so it takes longer.

    Example:
        >>> from musubi import LoHa
        >>> LoHa(rank=8, alpha=4).strength
        0.5
    """

    kind: ClassVar[str] = "loha"

    def layer(self, group: Sequence[nn.Linear], *, sizes: Sizes, device: str = "cpu") -> LoHaLayer:
        """Return a LoHa layer."""
        from musubi.networks.loha_layer import LoHaLayer

        rows = tuple(linear.out_features for linear in group)
        return LoHaLayer(
            group[0].in_features, rows, rank=sizes.rank, alpha=sizes.alpha, dropouts=self.dropouts, device=device
        )
