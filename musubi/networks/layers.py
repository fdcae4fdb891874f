"""The trainable part of one adapted module: a delta whose rows several Linears may share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from musubi.networks.dropouts import Dropouts
from musubi.networks.weights import AdapterWeights


class Round:
    """What the members of a group have in common in one pass through them: random draws, and products of their input.

    A member that comes for the second time begins a new round: the model was called again, or a block is computed again
    in backward. Nothing is kept once all members have come.
    """

    def __init__(self, members: int) -> None:
        self._members = members
        self._served: set[int] = set()
        self._drawn: dict[str, Tensor] = {}
        self._product: tuple[Tensor, Tensor] | None = None

    def begin(self, part: int) -> None:
        """Tell that a member starts to compute."""
        if part in self._served:
            self._clear()
        self._served.add(part)

    def end(self) -> None:
        """Tell that it is done."""
        if len(self._served) == self._members:
            self._clear()

    def once(self, name: str, draw: Callable[[], Tensor]) -> Tensor:
        """Return what this round drew under a name, drawing it if it is the first to ask."""
        if not self._served:
            return draw()
        if name not in self._drawn:
            self._drawn[name] = draw()
        return self._drawn[name]

    def product(self, x: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """Return ``make(x)``, made once for all members that have the very same input."""
        if self._members == 1 or not self._served:
            return make(x)
        if self._product is None or self._product[0] is not x:
            self._product = x, make(x)
        return self._product[1]

    def _clear(self) -> None:
        self._served.clear()
        self._drawn.clear()
        self._product = None


class AdapterLayer(nn.Module, ABC):
    """One delta over ``in_features``, its rows dealt out to the members of a group in order: ``rows[part]`` each."""

    def __init__(self, in_features: int, rows: Sequence[int], dropouts: Dropouts | None) -> None:
        super().__init__()
        self.in_features = in_features
        self.rows = tuple(rows)
        self.dropouts = dropouts or Dropouts()
        self._round = Round(len(self.rows))
        self._spans = tuple(pairwise(sum(self.rows[:part]) for part in range(len(self.rows) + 1)))

    @abstractmethod
    def draw(self, generator: Generator) -> None:
        """Draw the initial weights, which have no effect, from a generator of the CPU."""

    @abstractmethod
    def delta(self, x: Tensor, part: int = 0) -> Tensor:
        """Return what member ``part`` adds to its output for input ``x`` (..., in_features)."""

    @abstractmethod
    def has_no_effect(self) -> bool:
        """Whether the delta is zero for every input."""

    @abstractmethod
    def norm(self) -> Tensor:
        """Return the Frobenius norm of the delta, a scalar."""

    @abstractmethod
    def shrink(self, ratio: float) -> None:
        """Multiply the delta by ``ratio``, which is not negative."""

    @abstractmethod
    def weights(self) -> AdapterWeights:
        """Return a copy of what a file keeps of this layer."""

    @abstractmethod
    def load(self, weights: AdapterWeights) -> None:
        """Take over what a file keeps; kind and shapes must fit."""

    def change(self, linear: nn.Linear, x: Tensor, output: Tensor, part: int, weight: float) -> Tensor:
        """Return what member ``part``, a Linear that gave ``output`` for ``x``, gives with ``weight`` of the delta."""
        self._round.begin(part)
        changed = output if self._skips() else self._changed(linear, x, output, part, weight)
        self._round.end()
        return changed

    def plus_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters that LoRA+ lets learn faster; none unless overridden."""
        return ()

    def span(self, part: int) -> tuple[int, int]:
        """Return the first row of a member and the row after its last."""
        return self._spans[part]

    def _changed(self, linear: nn.Linear, x: Tensor, output: Tensor, part: int, weight: float) -> Tensor:
        """Return the changed output; a kind that has a quicker way, or another, overrides this."""
        del linear
        return torch.add(output, self.delta(x, part).to(output.dtype), alpha=weight)

    def _skips(self) -> bool:
        """Draw whether the delta is left out of this pass."""
        probability = self.dropouts.module
        if not (probability and self.training):
            return False
        return bool(self._round.once("module", lambda: torch.rand(1)) < probability)

    def _kept_outputs(self, part: int, like: Tensor) -> Tensor | None:
        """Return what member ``part``'s outputs are multiplied by, some of them 0; None where none is dropped."""
        probability = self.dropouts.rank
        if not (probability and self.training):
            return None
        start, stop = self.span(part)
        return self._round.once("rank", lambda: kept(sum(self.rows), probability, like))[start:stop]


def kept(count: int, probability: float, like: Tensor) -> Tensor:
    """Draw ``count`` factors: 0 with a probability, else what keeps the mean at 1."""
    return functional.dropout(torch.ones(count, device=like.device, dtype=like.dtype), probability)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x @ weight.T`` in autocast's dtype where autocast is on, else in the dtype of ``x``."""
    if weight.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        weight = weight.to(x.dtype)
    return functional.linear(x, weight)
