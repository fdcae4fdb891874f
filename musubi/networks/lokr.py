"""LoKr: the Kronecker product of a small matrix and a larger, low-rank one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.fields import field
from musubi.networks.network import AdapterNetwork

if TYPE_CHECKING:
    from torch import nn

    from musubi.networks.lokr_layer import LoKrLayer
    from musubi.networks.rules import Sizes


def _factor(value: object) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool) and (value == -1 or value >= 1)
    return None if good else f"must be -1 or a whole number of at least 1, got {value!r}"


@attrs.frozen(kw_only=True)
class LoKr(AdapterNetwork):
    """Train a Kronecker product for each adapted module: a high rank from very few parameters.

    ``delta = scale * kron(w1, w2)``, ``w2`` being ``w2_a @ w2_b`` of the given rank (Yeh et al. 2024,
    https://arxiv.org/abs/2309.14859). ``factor`` is the size of ``w1`` where it divides a module's sizes; -1 makes both
    factors as square as possible. Where the rank is not small against ``w2``, that is trained whole and ``alpha`` has
    no meaning. Files need no factor: their shapes tell it.

    Example:
        >>> from musubi import LoKr
        >>> LoKr(rank=8, factor=4).factor
        4
    """

    kind: ClassVar[str] = "lokr"

    factor: int = field(default=-1, check=_factor)

    def layer(self, group: Sequence[nn.Linear], *, sizes: Sizes, device: str = "cpu") -> LoKrLayer:
        """Return a LoKr layer."""
        from musubi.networks.lokr_layer import LoKrLayer

        rows = tuple(linear.out_features for linear in group)
        return LoKrLayer.sized(
            group[0].in_features,
            rows,
            rank=sizes.rank,
            alpha=sizes.alpha,
            factor=self.factor,
            dropouts=self.dropouts,
            device=device,
        )
