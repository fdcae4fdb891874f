"""Singular values of a delta, found in its factors without building the delta, and LoRAs of a chosen rank from them."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from musubi.core.errors import Issue, WeightsError
from musubi.networks.weights import AdapterWeights, LoHaWeights, LoKrWeights, LoRAWeights


@attrs.frozen(eq=False)
class Spectrum:
    """``left @ diag(values) @ right``: singular vectors (out, n) and (n, in), singular values (n,), largest first."""

    left: Tensor
    values: Tensor
    right: Tensor

    @property
    def norm(self) -> float:
        """The Frobenius norm."""
        return float(self.values.norm())

    def rank_for(self, keep: float) -> int:
        """Return the least rank that keeps the share ``keep`` of the norm, at least 1."""
        squares = self.values.square().cumsum(0)
        wanted = keep**2 * float(squares[-1]) * (1 - 1e-12)
        return int(torch.searchsorted(squares, wanted).item()) + 1 if wanted > 0 else 1

    def lora(self, rank: int) -> LoRAWeights:
        """Return the nearest LoRA of a rank (Eckart and Young 1936), or of all the rank there is; alpha is the rank.

        Both matrices carry the square root of the singular values.
        """
        rank = max(1, min(rank, len(self.values)))
        root = self.values[:rank].sqrt()
        return LoRAWeights(
            down=(root[:, None] * self.right[:rank]).float().contiguous(),
            up=(self.left[:, :rank] * root).float().contiguous(),
            alpha=torch.tensor(float(rank)),
        )


def spectrum(weights: AdapterWeights) -> Spectrum:
    """Return the singular value decomposition of an adapter's delta, computed in float64.

    Takes time and memory by the rank for a LoRA, by its square for a LoHa, and by the factors for a LoKr.

    Raises:
        WeightsError: The adapter is a DoRA, whose effect depends on the base weight, or adapts a convolution.
    """
    if isinstance(weights, LoRAWeights) and weights.magnitude is None and weights.down.ndim == 2:
        return of_product(weights.strength * weights.up.double(), weights.down.double())
    if isinstance(weights, LoHaWeights):
        return _of_hadamard(weights)
    if isinstance(weights, LoKrWeights):
        return _of_kronecker(weights)
    what = "a DoRA changes what the base weight is, so it" if weights.kind == "dora" else "a convolution's adapter"
    hint = "merge it into a checkpoint, and extract a LoRA from the two"
    raise WeightsError("cannot decompose", [Issue("", f"{what} has no singular values of its own", hint)])


def norm(weights: AdapterWeights) -> float:
    """Return the Frobenius norm of an adapter's delta, from the small products of a LoRA's and LoKr's factors.

    A DoRA's is that of its low-rank part.
    """
    if isinstance(weights, LoRAWeights):
        up, down = weights.up.double().flatten(1), weights.down.double().flatten(1)
        return abs(weights.strength) * float(((up.mT @ up) * (down @ down.mT)).sum().clamp(min=0).sqrt())
    if isinstance(weights, LoKrWeights):
        return abs(weights.strength) * float(weights.left.norm() * weights.right.norm())
    return float(weights.delta().norm())


def of_product(up: Tensor, down: Tensor) -> Spectrum:
    """Return the decomposition of ``up @ down``: both are made orthogonal, what is left between them is small."""
    left, upper = torch.linalg.qr(up)
    right, lower = torch.linalg.qr(down.mT)
    return _around(left, of_matrix(upper @ lower.mT), right.mT)


def of_matrix(matrix: Tensor) -> Spectrum:
    """Return the decomposition of a matrix."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return Spectrum(left, values, right)


def side_by_side(parts: Sequence[LoRAWeights], weights: Sequence[float]) -> LoRAWeights:
    """Return one LoRA whose delta is exactly the weighted sum of others'; its rank is the sum of theirs.

    Strengths and weights go into ``up``; matrices are float32.
    """
    ups = [lora.up.float() * (weight * lora.strength) for lora, weight in zip(parts, weights, strict=True)]
    rank = sum(lora.rank for lora in parts)
    return LoRAWeights(
        down=torch.cat([lora.down.float() for lora in parts]),
        up=torch.cat(ups, dim=1),
        alpha=torch.tensor(float(rank)),
    )


def _around(left: Tensor, inner: Spectrum, right: Tensor) -> Spectrum:
    return Spectrum(left @ inner.left, inner.values, inner.right @ right)


def _of_hadamard(weights: LoHaWeights) -> Spectrum:
    """Use that the product by elements of two products is one product: of all pairs of columns and of rows."""
    (out, width), rank = weights.shape, weights.rank
    if rank**2 >= min(out, width):
        return of_matrix(weights.delta().double())
    up = (weights.w1_a.double()[:, :, None] * weights.w2_a.double()[:, None, :]).reshape(out, rank**2)
    down = (weights.w1_b.double()[:, None, :] * weights.w2_b.double()[None, :, :]).reshape(rank**2, width)
    return of_product(up * weights.strength, down)


def _of_kronecker(weights: LoKrWeights) -> Spectrum:
    """Use that a Kronecker product's singular values and vectors are the products of the factors' ones."""
    first, second = of_matrix(weights.left.double()), of_matrix(weights.right.double())
    values = torch.kron(first.values, second.values) * abs(weights.strength)
    order = values.argsort(descending=True)[: _useful(values)]
    rows, columns = order // len(second.values), order % len(second.values)
    left = _pairs(first.left.mT, second.left.mT, rows, columns).mT
    right = _pairs(first.right, second.right, rows, columns)
    return Spectrum(left if weights.strength >= 0 else -left, values[order], right)


def _pairs(first: Tensor, second: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the Kronecker products of row ``rows[i]`` of one with row ``columns[i]`` of the other."""
    return (first[rows][:, :, None] * second[columns][:, None, :]).flatten(1)


def _useful(values: Tensor) -> int:
    """Return how many values are more than rounding, at least one."""
    return max(1, int((values > values.max() * 1e-7).sum()))
