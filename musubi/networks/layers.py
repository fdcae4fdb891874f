"""The trainable part of one adapted module: a delta whose rows several Linears may share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from musubi.networks.weights import LoRAWeights


class AdapterLayer(nn.Module, ABC):
    """One delta over ``in_features``, its rows dealt out to the members of a group in order: ``rows[part]`` each."""

    def __init__(self, in_features: int, rows: Sequence[int]) -> None:
        super().__init__()
        self.in_features = in_features
        self.rows = tuple(rows)

    @abstractmethod
    def delta(self, x: Tensor, part: int = 0) -> Tensor:
        """Return what member ``part`` adds to its output for input ``x`` (..., in_features)."""

    @abstractmethod
    def has_no_effect(self) -> bool:
        """Whether the delta is zero for every input."""

    @abstractmethod
    def weights(self) -> LoRAWeights:
        """Return a copy of what a file keeps of this layer."""

    @abstractmethod
    def load(self, weights: LoRAWeights) -> None:
        """Take over what a file keeps; shapes must fit."""

    def span(self, part: int) -> tuple[int, int]:
        """Return the first row of a member and the row after its last."""
        start = sum(self.rows[:part])
        return start, start + self.rows[part]


class LoRALayer(AdapterLayer):
    """``delta(x) = alpha / rank * up @ down @ x``; ``down`` is (rank, in), ``up`` (out of all members together, rank).

    Parameters are float32. They compute in autocast's dtype where autocast is on, else in the dtype of ``x``.
    """

    def __init__(self, in_features: int, rows: Sequence[int], *, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__(in_features, rows)
        self.alpha, self.dropout = alpha, dropout
        self.down = nn.Parameter(torch.zeros(rank, in_features))
        self.up = nn.Parameter(torch.zeros(sum(rows), rank))
        self._mask: Tensor | None = None
        self._served: set[int] = set()

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
        start, stop = self.span(part)
        hidden = self._dropped(_linear(x, self.down), part) * (self.alpha / self.rank)
        return _linear(hidden, self.up[start:stop])

    def has_no_effect(self) -> bool:
        """Whether ``up`` or ``down`` is zero throughout."""
        return not (self.up.any() and self.down.any())

    def weights(self) -> LoRAWeights:
        """Return copies on the CPU."""
        down, up = (p.detach().to("cpu", copy=True) for p in (self.down, self.up))
        return LoRAWeights(down, up, torch.tensor(self.alpha, dtype=torch.float32))

    @torch.no_grad()
    def load(self, weights: LoRAWeights) -> None:
        """Copy the weights in and take over their alpha."""
        self.down.copy_(weights.down)
        self.up.copy_(weights.up)
        self.alpha = weights.alpha.item()

    def _dropped(self, hidden: Tensor, part: int) -> Tensor:
        if not (self.training and self.dropout):
            return hidden
        if len(self.rows) == 1:
            return functional.dropout(hidden, self.dropout)
        return hidden * self._shared_mask(hidden, part)

    def _shared_mask(self, hidden: Tensor, part: int) -> Tensor:
        """Return one mask for all members of a group, as if they were still one matrix; a new round draws a new one."""
        mask = self._mask
        if mask is None or part in self._served or mask.shape != hidden.shape or mask.device != hidden.device:
            mask = functional.dropout(torch.ones_like(hidden), self.dropout)
            self._mask, self._served = mask, set()
        self._served.add(part)
        return mask.to(hidden.dtype)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(x.device.type):
        weight = weight.to(x.dtype)
    return functional.linear(x, weight)
