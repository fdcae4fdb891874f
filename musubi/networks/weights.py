"""The matrices of one adapted module, as files keep them: LoRA (with or without DoRA's magnitude), LoHa and LoKr."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import ClassVar, Self

import attrs
import torch
from torch import Tensor

Kind = str
"""``lora``, ``dora``, ``loha`` or ``lokr``."""


@attrs.frozen(eq=False)
class AdapterWeights(ABC):
    """What one file keeps of one module: matrices, which their kind names, and the scalar ``alpha``."""

    alpha: Tensor
    """Scales the delta by ``alpha / rank``."""

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What sort of adapter this is."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """The inner dimension."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of the delta, which is that of the base weight: (out, in), or a convolution's kernel."""

    @property
    @abstractmethod
    def zero_effect(self) -> bool:
        """Whether the delta is zero."""

    @abstractmethod
    def delta(self) -> Tensor:
        """Return what is added to the base weight at strength 1, in float32 and the base weight's shape."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return everything by role, ``alpha`` first, in the order of the reference's files."""

    @abstractmethod
    def replaced(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same with every matrix changed; alpha stays."""

    @abstractmethod
    def scaled(self, weight: float) -> Self:
        """Return the same delta times ``weight``; alpha stays, since some loaders hang on alpha <= 0."""

    @property
    def strength(self) -> float:
        """The factor of the delta, ``alpha / rank``."""
        return float(self.alpha) / self.rank

    @property
    def numel(self) -> int:
        """How many numbers the matrices have."""
        return sum(tensor.numel() for role, tensor in self.tensors().items() if role != "alpha")

    def to(self, dtype: torch.dtype) -> Self:
        """Return the matrices in another precision; alpha stays float32, so that it is never rounded."""
        return self.replaced(lambda tensor: tensor.to(dtype))

    def merged(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """Return a base weight with this adapter at ``strength``, in float32; ``weight`` is as it is in the file."""
        base = weight.float()
        return base + strength * self.delta().to(base.device)


@attrs.frozen(eq=False)
class LoRAWeights(AdapterWeights):
    """``down`` (rank, in) and ``up`` (out, rank), or convolution kernels of such channels; ``alpha`` is a scalar.

    With ``magnitude``, one number for each row, the weight is DoRA's: ``magnitude * (W + delta) / |W + delta|``, rows
    taken by their norms (Liu et al. 2024, https://arxiv.org/abs/2402.09353).
    """

    down: Tensor
    up: Tensor
    alpha: Tensor
    magnitude: Tensor | None = None

    @property
    def kind(self) -> Kind:
        """``lora``, or ``dora`` with a magnitude."""
        return "lora" if self.magnitude is None else "dora"

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), with a kernel for convolutions."""
        return (self.up.shape[0], *self.down.shape[1:])

    @property
    def zero_effect(self) -> bool:
        """Whether the delta is zero; a magnitude may still differ from the base's."""
        return not (self.up.any() and self.down.any() and self.alpha.any())

    def delta(self) -> Tensor:
        """Return ``alpha / rank * up @ down``.

        A convolution's ``up`` must be 1x1; its ``down`` has the base's kernel.
        """
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return product.reshape(self.shape) * self.strength

    def tensors(self) -> dict[str, Tensor]:
        """Return alpha, down, up and, if there is one, dora_scale."""
        found = {"alpha": self.alpha, "down": self.down, "up": self.up}
        return found if self.magnitude is None else {**found, "dora_scale": self.magnitude}

    def replaced(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same with every matrix changed."""
        magnitude = None if self.magnitude is None else change(self.magnitude)
        return attrs.evolve(
            self, down=change(self.down), up=change(self.up), alpha=self.alpha.to(torch.float32), magnitude=magnitude
        )

    def scaled(self, weight: float) -> Self:
        """Return the same with ``weight`` in ``up``; DoRA's effect is not in proportion to its delta."""
        return attrs.evolve(self, up=(self.up.float() * weight).to(self.up.dtype))

    def folded(self) -> LoRAWeights:
        """Return the same delta with ``alpha`` = rank.

        The power of two nearest the square root of the strength goes into ``up`` without rounding, the rest into
        ``down``, so that neither becomes tiny.
        """
        if self.strength == 1:
            return self
        power = 2.0 ** (math.frexp(math.sqrt(abs(self.strength)))[1] - 1) if self.strength else 1.0
        return LoRAWeights(
            down=(self.down.float() * (self.strength / power)).to(self.down.dtype),
            up=(self.up.float() * power).to(self.up.dtype),
            alpha=torch.tensor(float(self.rank)),
            magnitude=self.magnitude,
        )

    def merged(self, weight: Tensor, strength: float = 1.0) -> Tensor:
        """Return the base weight with this adapter; DoRA goes ``strength`` of the way to its own weight."""
        base = weight.float()
        if self.magnitude is None:
            return base + strength * self.delta().to(base.device)
        moved = base + self.delta().to(base.device)
        norms = moved.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
        scale: Tensor = self.magnitude.float().to(base.device).reshape(-1) / norms
        return base + strength * (moved * scale.view(-1, *[1] * (moved.ndim - 1)) - base)


@attrs.frozen(eq=False)
class LoHaWeights(AdapterWeights):
    """Four matrices: ``delta = alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b)``, the middle ``*`` taken by elements.

    ``w1_a`` and ``w2_a`` are (out, rank), ``w1_b`` and ``w2_b`` (rank, in). Source: Hyeon-Woo et al. 2022,
    https://arxiv.org/abs/2108.06098; names as LyCORIS has them.
    """

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    alpha: Tensor

    @property
    def kind(self) -> Kind:
        """``loha``."""
        return "loha"

    @property
    def rank(self) -> int:
        """The inner dimension of both products."""
        return self.w1_b.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        return self.w1_a.shape[0], self.w1_b.shape[1]

    @property
    def zero_effect(self) -> bool:
        """Whether one of the factors is zero."""
        return not all(tensor.any() for tensor in self.tensors().values())

    def delta(self) -> Tensor:
        """Return the product of the two products."""
        return (self.w1_a.float() @ self.w1_b.float()) * (self.w2_a.float() @ self.w2_b.float()) * self.strength

    def tensors(self) -> dict[str, Tensor]:
        """Return alpha and the four matrices."""
        names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        matrices = zip(names, (self.w1_a, self.w1_b, self.w2_a, self.w2_b), strict=True)
        return {"alpha": self.alpha, **dict(matrices)}

    def replaced(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same with every matrix changed."""
        return attrs.evolve(
            self,
            w1_a=change(self.w1_a),
            w1_b=change(self.w1_b),
            w2_a=change(self.w2_a),
            w2_b=change(self.w2_b),
            alpha=self.alpha.to(torch.float32),
        )

    def scaled(self, weight: float) -> Self:
        """Return the same with ``weight`` in ``w2_a``."""
        return attrs.evolve(self, w2_a=(self.w2_a.float() * weight).to(self.w2_a.dtype))


@attrs.frozen(eq=False)
class LoKrWeights(AdapterWeights):
    """A Kronecker product: ``delta = scale * kron(w1, w2)``; either factor may be a product of two thin matrices.

    ``w1`` is (out / n, in / m), or ``w1_a @ w1_b``; ``w2`` is (n, m), or ``w2_a @ w2_b``. Where both are whole,
    ``scale`` is 1 whatever ``alpha`` says; else it is ``alpha / rank``. Names as LyCORIS has them.
    """

    alpha: Tensor
    w1: Tensor | None = None
    w1_a: Tensor | None = None
    w1_b: Tensor | None = None
    w2: Tensor | None = None
    w2_a: Tensor | None = None
    w2_b: Tensor | None = None

    ROLES: ClassVar[Mapping[str, str]] = MappingProxyType(
        {f"lokr_{name}": name for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")}
    )

    @property
    def kind(self) -> Kind:
        """``lokr``."""
        return "lokr"

    @property
    def rank(self) -> int:
        """The inner dimension of a factor that is a product; alpha itself where both are whole."""
        inner = self.w2_b if self.w2_b is not None else self.w1_b
        return max(1, round(float(self.alpha))) if inner is None else inner.shape[0]

    @property
    def strength(self) -> float:
        """1 where both factors are whole, else ``alpha / rank``."""
        return 1.0 if self.w1 is not None and self.w2 is not None else float(self.alpha) / self.rank

    @property
    def left(self) -> Tensor:
        """The first factor, float32."""
        return _whole(self.w1, self.w1_a, self.w1_b)

    @property
    def right(self) -> Tensor:
        """The second factor, float32."""
        return _whole(self.w2, self.w2_a, self.w2_b)

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        (a, b), (c, d) = (_shape(*factor) for factor in self._factors())
        return a * c, b * d

    @property
    def zero_effect(self) -> bool:
        """Whether one of the factors is zero."""
        return not (self.left.any() and self.right.any() and self.strength)

    def delta(self) -> Tensor:
        """Return the Kronecker product."""
        product: Tensor = torch.kron(self.left, self.right)
        return product * self.strength

    def tensors(self) -> dict[str, Tensor]:
        """Return alpha and the matrices that there are."""
        found = {role: getattr(self, name) for role, name in self.ROLES.items()}
        return {"alpha": self.alpha, **{role: tensor for role, tensor in found.items() if tensor is not None}}

    def replaced(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same with every matrix changed."""
        there = {self.ROLES[role]: change(t) for role, t in self.tensors().items() if role != "alpha"}
        return attrs.evolve(self, alpha=self.alpha.to(torch.float32), **there)

    def scaled(self, weight: float) -> Self:
        """Return the same with ``weight`` in the first factor."""
        name = "w1" if self.w1 is not None else "w1_a"
        factor: Tensor = getattr(self, name)
        return attrs.evolve(self, **{name: (factor.float() * weight).to(factor.dtype)})

    def _factors(self) -> tuple[tuple[Tensor | None, Tensor | None, Tensor | None], ...]:
        return (self.w1, self.w1_a, self.w1_b), (self.w2, self.w2_a, self.w2_b)


def _whole(matrix: Tensor | None, a: Tensor | None, b: Tensor | None) -> Tensor:
    if matrix is not None:
        return matrix.float()
    assert a is not None, "a factor is there whole, or as both its parts"
    assert b is not None, "a factor is there whole, or as both its parts"
    return a.float() @ b.float()


def _shape(matrix: Tensor | None, a: Tensor | None, b: Tensor | None) -> tuple[int, int]:
    if matrix is not None:
        return matrix.shape[0], matrix.shape[1]
    assert a is not None, "a factor is there whole, or as both its parts"
    assert b is not None, "a factor is there whole, or as both its parts"
    return a.shape[0], b.shape[1]
