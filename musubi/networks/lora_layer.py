"""LoRA's layer: two thin products, with the second one added to the base's output in the same operation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from musubi.networks.dropouts import Dropouts
from musubi.networks.layers import AdapterLayer, kept, linear
from musubi.networks.weights import AdapterWeights, LoRAWeights


class LoRALayer(AdapterLayer):
    """``delta(x) = alpha / rank * up @ down @ x``; ``down`` is (rank, in), ``up`` (out of all members together, rank).

    Parameters are float32. They compute in autocast's dtype where autocast is on, else in the dtype of ``x``.
    """

    def __init__(
        self,
        in_features: int,
        rows: Sequence[int],
        *,
        rank: int,
        alpha: float,
        dropouts: Dropouts | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(in_features, rows, dropouts)
        self.alpha = alpha
        self.down = nn.Parameter(torch.zeros(rank, in_features, device=device))
        self.up = nn.Parameter(torch.zeros(sum(rows), rank, device=device))

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.down.shape[0]

    @torch.no_grad()
    def draw(self, generator: Generator) -> None:
        """Initialise: ``down`` uniform in +-1/sqrt(in), ``up`` zero.

        Consumes the generator as the reference does, whose two Linears initialise themselves first, so that the same
        seed gives the same weights (golden case ``models_lora_wan21_i2v``).
        """
        for discarded in (self.down, self.up, self.down):
            nn.init.kaiming_uniform_(discarded, a=math.sqrt(5), generator=generator)
        self.up.zero_()

    def delta(self, x: Tensor, part: int = 0) -> Tensor:
        """Return (..., rows[part]) for ``x`` (..., in_features)."""
        return linear(self._hidden(x), self._up(part)) * (self.alpha / self.rank)

    def has_no_effect(self) -> bool:
        """Whether ``up`` or ``down`` is zero throughout."""
        return not (self.up.any() and self.down.any())

    @torch.no_grad()
    def norm(self) -> Tensor:
        """Return the delta's norm by the two small Gram matrices."""
        left, right = self.up.float(), self.down.float()
        square = ((left.T @ left) * (right @ right.T)).sum()
        return square.clamp(min=0).sqrt() * (self.alpha / self.rank)

    @torch.no_grad()
    def shrink(self, ratio: float) -> None:
        """Multiply both matrices by the root of ``ratio``."""
        self.up.mul_(math.sqrt(ratio))
        self.down.mul_(math.sqrt(ratio))

    def plus_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return ``up``."""
        return (self.up,)

    def weights(self) -> LoRAWeights:
        """Return copies on the CPU."""
        down, up = (p.detach().to("cpu", copy=True) for p in (self.down, self.up))
        return LoRAWeights(down, up, torch.tensor(self.alpha, dtype=torch.float32))

    @torch.no_grad()
    def load(self, weights: AdapterWeights) -> None:
        """Copy the weights in and take over their alpha."""
        assert isinstance(weights, LoRAWeights), "kinds were compared before"
        self.down.copy_(weights.down)
        self.up.copy_(weights.up)
        self.alpha = weights.alpha.item()

    def _changed(self, linear: nn.Linear, x: Tensor, output: Tensor, part: int, weight: float) -> Tensor:
        del linear
        return self._raised(output, self._round.product(x, self._hidden), self._up(part), weight)

    def _raised(self, output: Tensor, hidden: Tensor, up: Tensor, weight: float) -> Tensor:
        """Return ``output + weight * alpha / rank * hidden @ up.T``, product and sum in one where the types agree."""
        rank, width = hidden.shape[-1], output.shape[-1]
        strength = weight * self.alpha / rank
        if hidden.dtype != output.dtype:
            return torch.add(output, linear(hidden, up).to(output.dtype), alpha=strength)
        turned = up.to(hidden.dtype).t()
        flat = torch.addmm(output.reshape(-1, width), hidden.reshape(-1, rank), turned, alpha=strength)
        return flat.view(output.shape)

    def _up(self, part: int) -> Tensor:
        if len(self.rows) == 1:
            return self.up
        start, stop = self._spans[part]
        return self.up[start:stop]

    def _hidden(self, x: Tensor) -> Tensor:
        """Return the rank activations (..., rank), with what training drops of them."""
        hidden = linear(x, self.down)
        if not self.training:
            return hidden
        if self.dropouts.hidden:
            hidden = self._dropped(hidden)
        if self.dropouts.rank:
            items = hidden.shape[0] if hidden.ndim > 1 else 1
            shape = (items, *[1] * (hidden.ndim - 2), self.rank) if hidden.ndim > 1 else (self.rank,)
            mask = self._round.once("rank", lambda: kept(items * self.rank, self.dropouts.rank, hidden))
            hidden = hidden * mask.view(shape)
        return hidden

    def _dropped(self, hidden: Tensor) -> Tensor:
        if len(self.rows) == 1:
            return functional.dropout(hidden, self.dropouts.hidden)
        mask = self._round.once("hidden", lambda: functional.dropout(torch.ones_like(hidden), self.dropouts.hidden))
        return hidden * mask.to(hidden.dtype)
