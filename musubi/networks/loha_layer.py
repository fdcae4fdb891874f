"""LoHa's layer: a dense delta that is built for the moment and never kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from musubi.networks.dropouts import Dropouts
from musubi.networks.layers import AdapterLayer
from musubi.networks.weights import AdapterWeights, LoHaWeights


class LoHaLayer(AdapterLayer):
    """``delta = alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b)``; the ``a`` are (out, rank), the ``b`` (rank, in)."""

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
        out = sum(rows)
        self.hada_w1_a = nn.Parameter(torch.zeros(out, rank, device=device))
        self.hada_w1_b = nn.Parameter(torch.zeros(rank, in_features, device=device))
        self.hada_w2_a = nn.Parameter(torch.zeros(out, rank, device=device))
        self.hada_w2_b = nn.Parameter(torch.zeros(rank, in_features, device=device))

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.hada_w1_b.shape[0]

    @torch.no_grad()
    def draw(self, generator: Generator) -> None:
        """Initialise as LyCORIS: ``w1_a`` normal with deviation 0.1, both ``b`` with 1, ``w2_a`` zero."""
        nn.init.normal_(self.hada_w1_a, std=0.1, generator=generator)
        nn.init.normal_(self.hada_w1_b, std=1.0, generator=generator)
        self.hada_w2_a.zero_()
        nn.init.normal_(self.hada_w2_b, std=1.0, generator=generator)

    def delta(self, x: Tensor, part: int = 0) -> Tensor:
        """Return (..., rows[part]) for ``x`` (..., in_features)."""
        start, stop = self.span(part)
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        result: Tensor = _Hadamard.apply(  # type: ignore[no-untyped-call]
            x.to(dtype),
            self.hada_w1_a[start:stop],
            self.hada_w1_b,
            self.hada_w2_a[start:stop],
            self.hada_w2_b,
            self.alpha / self.rank,
        )
        mask = self._kept_outputs(part, result)
        return result if mask is None else result * mask

    def has_no_effect(self) -> bool:
        """Whether a factor is zero throughout."""
        return not all(parameter.any() for parameter in self.parameters())

    @torch.no_grad()
    def norm(self) -> Tensor:
        """Return the delta's norm; the delta is built for it."""
        one, other = self.hada_w1_a @ self.hada_w1_b, self.hada_w2_a @ self.hada_w2_b
        norm: Tensor = torch.linalg.vector_norm(one.mul_(other))
        return norm * (self.alpha / self.rank)

    @torch.no_grad()
    def shrink(self, ratio: float) -> None:
        """Multiply both ``a`` by the root of ``ratio``."""
        self.hada_w1_a.mul_(math.sqrt(ratio))
        self.hada_w2_a.mul_(math.sqrt(ratio))

    def weights(self) -> LoHaWeights:
        """Return copies on the CPU."""
        copies = {name.removeprefix("hada_"): p.detach().to("cpu", copy=True) for name, p in self.named_parameters()}
        return LoHaWeights(**copies, alpha=torch.tensor(self.alpha, dtype=torch.float32))

    @torch.no_grad()
    def load(self, weights: AdapterWeights) -> None:
        """Copy the weights in and take over their alpha."""
        tensors = weights.tensors()
        for name, parameter in self.named_parameters():
            parameter.copy_(tensors[name])
        self.alpha = weights.alpha.item()


class _Hadamard(torch.autograd.Function):
    """``x @ delta.T``, where backward builds the delta again instead of finding it kept."""

    @staticmethod
    def forward(  # noqa: PLR0917  (autograd passes by position)
        ctx: Any, x: Tensor, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, strength: float
    ) -> Tensor:
        ctx.save_for_backward(x, a1, b1, a2, b2)
        ctx.strength = strength
        with torch.autocast(x.device.type, enabled=False):
            delta = (a1 @ b1).mul_(a2 @ b2).mul_(strength)
            return x @ delta.to(x.dtype).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, a1, b1, a2, b2 = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            one, other = a1 @ b1, (a2 @ b2).mul_(ctx.strength)
            by_x = gradient @ (one * other).to(gradient.dtype) if ctx.needs_input_grad[0] else None
            by_delta = (gradient.reshape(-1, gradient.shape[-1]).T @ x.reshape(-1, x.shape[-1])).to(a1.dtype)
            left = by_delta * other
            by_a1, by_b1 = left @ b1.T, a1.T @ left
            right = by_delta.mul_(one).mul_(ctx.strength)
            return by_x, by_a1, by_b1, right @ b2.T, a2.T @ right, None
