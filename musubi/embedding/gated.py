"""The gated feed-forward of T5 encoders, whatever form its weights are kept in."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class GatedByType(nn.Module):
    """Compute in the type of what comes in.

    transformers' own rounds what goes into ``wo`` to the type of the stored weight, which may be an 8-bit float.
    Classes of transformers take this one before their own.
    """

    act: Callable[[Tensor], Tensor]
    dropout: nn.Dropout
    wi_0: nn.Linear
    wi_1: nn.Linear
    wo: nn.Linear

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the feed-forward of the hidden states, in their type."""
        gated = self.act(self.wi_0(hidden_states)) * self.wi_1(hidden_states)
        result: Tensor = self.wo(self.dropout(gated))
        return result
