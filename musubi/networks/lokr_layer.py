"""LoKr's layer: a Kronecker product applied factor by factor, never built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Self

import torch
from torch import Generator, Tensor, nn

from musubi.networks.dropouts import Dropouts
from musubi.networks.layers import AdapterLayer, linear
from musubi.networks.weights import AdapterWeights, LoKrWeights


class LoKrLayer(AdapterLayer):
    """``delta = scale * kron(w1, w2)``; ``w1`` is (out / n, in / m), ``w2`` (n, m) whole or as ``w2_a @ w2_b``.

    An input (..., in) is seen as a matrix of in / m rows and m columns; then ``delta x = w1 @ X @ w2.T``, flattened.
    """

    def __init__(
        self,
        in_features: int,
        rows: Sequence[int],
        *,
        shapes: dict[str, tuple[int, int]],
        alpha: float,
        rank: int,
        dropouts: Dropouts | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(in_features, rows, dropouts)
        self.alpha, self.rank = alpha, rank
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, device=device)))
        self._names = {side: tuple(name for name in shapes if name.startswith(side)) for side in ("lokr_w1", "lokr_w2")}

    @classmethod
    def sized(
        cls,
        in_features: int,
        rows: Sequence[int],
        *,
        rank: int,
        alpha: float,
        factor: int = -1,
        dropouts: Dropouts | None = None,
        device: str = "cpu",
    ) -> Self:
        """Return the layer that a rank and a factor mean; a whole ``w2`` stores alpha = rank."""
        in_m, in_n = factors(in_features, factor)
        out_m, out_n = factors(sum(rows), factor)
        shapes = {"lokr_w1": (out_m, in_m)}
        whole = rank >= max(out_n, in_n) / 2
        shapes |= {"lokr_w2": (out_n, in_n)} if whole else {"lokr_w2_a": (out_n, rank), "lokr_w2_b": (rank, in_n)}
        alpha = float(rank) if whole else alpha
        return cls(in_features, rows, shapes=shapes, alpha=alpha, rank=rank, dropouts=dropouts, device=device)

    @property
    def strength(self) -> float:
        """1 where both factors are whole, else ``alpha / rank``."""
        whole = all(len(names) == 1 for names in self._names.values())
        return 1.0 if whole else self.alpha / self.rank

    @torch.no_grad()
    def draw(self, generator: Generator) -> None:
        """Initialise uniformly in +-1/sqrt(columns), with zeros in ``w2`` or ``w2_b``."""
        *others, zero = self.parameters(recurse=False)
        for parameter in others:
            nn.init.kaiming_uniform_(parameter, a=math.sqrt(5), generator=generator)
        zero.zero_()

    def delta(self, x: Tensor, part: int = 0) -> Tensor:
        """Return (..., rows[part]) for ``x`` (..., in_features)."""
        return self._product(x, part) * self.strength

    def has_no_effect(self) -> bool:
        """Whether a factor is zero throughout."""
        return not all(parameter.any() for parameter in self.parameters())

    @torch.no_grad()
    def norm(self) -> Tensor:
        """Return the delta's norm: the product of the factors' norms."""
        norms = [_norm(self._factor(side)) for side in ("lokr_w1", "lokr_w2")]
        return norms[0] * norms[1] * self.strength

    @torch.no_grad()
    def shrink(self, ratio: float) -> None:
        """Multiply one matrix of each factor by the root of ``ratio``."""
        for side in ("lokr_w1", "lokr_w2"):
            self._factor(side)[0].mul_(math.sqrt(ratio))

    def weights(self) -> LoKrWeights:
        """Return copies on the CPU."""
        copies = {name.removeprefix("lokr_"): p.detach().to("cpu", copy=True) for name, p in self.named_parameters()}
        return LoKrWeights(alpha=torch.tensor(self.alpha, dtype=torch.float32), **copies)

    @torch.no_grad()
    def load(self, weights: AdapterWeights) -> None:
        """Copy the weights in and take over their alpha."""
        tensors = weights.tensors()
        for name, parameter in self.named_parameters():
            parameter.copy_(tensors[name])
        self.alpha = weights.alpha.item()

    def _changed(self, linear: nn.Linear, x: Tensor, output: Tensor, part: int, weight: float) -> Tensor:
        del linear
        return torch.add(output, self._product(x, part).to(output.dtype), alpha=weight * self.strength)

    def _product(self, x: Tensor, part: int) -> Tensor:
        """Return ``kron(w1, w2) @ x`` for a member's rows; of ``w1`` only the rows that these need are used."""
        start, stop = self.span(part)
        tall = self._factor("lokr_w2")[0].shape[0]
        first, last = start // tall, -(-stop // tall)
        narrow = self._round.product(x, self._narrowed)  # (..., in / m, n)
        mixed = applied(self._factor("lokr_w1"), narrow.transpose(-1, -2), rows=slice(first, last))
        result = mixed.transpose(-1, -2).flatten(-2)[..., start - first * tall : stop - first * tall]
        mask = self._kept_outputs(part, result)
        return result if mask is None else result * mask

    def _narrowed(self, x: Tensor) -> Tensor:
        right = self._factor("lokr_w2")
        return applied(right, x.unflatten(-1, (-1, right[-1].shape[1])))

    def _factor(self, side: str) -> tuple[Tensor, ...]:
        """Return a factor: one matrix, or two whose product it is."""
        return tuple(self.get_parameter(name) for name in self._names[side])


def applied(factor: tuple[Tensor, ...], x: Tensor, *, rows: slice = slice(None)) -> Tensor:
    """Return ``x @ w.T`` for a matrix ``w`` that is one, or the product of two, or some of its rows."""
    for matrix in factor[:0:-1]:
        x = linear(x, matrix)
    return linear(x, factor[0][rows])


def _norm(factor: tuple[Tensor, ...]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(reduce(torch.matmul, factor))
    return norm


def factors(size: int, factor: int = -1) -> tuple[int, int]:
    """Split a size into two factors, the smaller first.

    ``factor`` itself is one of them if it divides the size; else the smaller is the largest divisor that neither
    exceeds ``factor`` (-1: no limit) nor the root of the size. Source: LyCORIS' and the reference's factorisation.
    """
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    limit = size if factor < 0 else factor
    small, large = 1, size
    for candidate in range(2, math.isqrt(size) + 1):
        if size % candidate == 0 and candidate <= limit:
            small, large = candidate, size // candidate
    return small, large
