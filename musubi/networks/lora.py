"""Low-rank adaptation: delta = alpha / rank * up @ down, and DoRA, which learns each row's length apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.fields import field, positive
from musubi.networks.dropouts import Dropouts
from musubi.networks.network import AdapterNetwork, probability

if TYPE_CHECKING:
    from torch import nn

    from musubi.networks.lora_layer import LoRALayer
    from musubi.networks.rules import Sizes


@attrs.frozen(kw_only=True)
class LoRA(AdapterNetwork):
    """Train two thin matrices for each adapted module (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

    ``dropout`` is the probability with which a rank's activation is dropped for a token. With ``plus_ratio`` above 1
    the ``up`` matrices learn that much faster than ``down`` (LoRA+, Hayou et al. 2024,
    https://arxiv.org/abs/2402.12354).

    Example:
        >>> from musubi import LoRA
        >>> LoRA(rank=32, alpha=16).strength
        0.5
    """

    kind: ClassVar[str] = "lora"

    dropout: float = field(default=0.0, check=probability)
    plus_ratio: float = field(default=1.0, check=positive)

    @property
    def dropouts(self) -> Dropouts:
        """What training leaves out of each layer."""
        return Dropouts(hidden=self.dropout, rank=self.rank_dropout, module=self.module_dropout)

    def layer(self, group: Sequence[nn.Linear], *, sizes: Sizes, device: str = "cpu") -> LoRALayer:
        """Return a LoRA layer."""
        from musubi.networks.lora_layer import LoRALayer

        rows = tuple(linear.out_features for linear in group)
        return LoRALayer(
            group[0].in_features, rows, rank=sizes.rank, alpha=sizes.alpha, dropouts=self.dropouts, device=device
        )


@attrs.frozen(kw_only=True)
class DoRA(LoRA):
    """Train a direction by LoRA and the length of every row of the weight by itself (weight-decomposed adaptation).

    The adapted weight is ``magnitude * (W + delta) / |W + delta|``, with the norm of each row taken as a constant in
    backward (Liu et al. 2024, https://arxiv.org/abs/2402.09353, section 4.3). A fifth slower than LoRA, and not
    every program reads its files: see ``LoRAFile.check``.

    Example:
        >>> from musubi import DoRA
        >>> DoRA(rank=8).kind
        'dora'
    """

    kind: ClassVar[str] = "dora"

    def layer(self, group: Sequence[nn.Linear], *, sizes: Sizes, device: str = "cpu") -> LoRALayer:
        """Return a DoRA layer; its magnitudes start as the norms of the base weight's rows."""
        from musubi.networks.dora_layer import DoRALayer

        return DoRALayer.over(group, rank=sizes.rank, alpha=sizes.alpha, dropouts=self.dropouts, device=device)
