"""Optimisers as specs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.fields import at_least, field
from musubi.core.spec import Spec

if TYPE_CHECKING:
    import torch


def _betas(value: object) -> str | None:
    good = (
        isinstance(value, tuple) and len(value) == 2 and all(isinstance(b, int | float) and 0 <= b < 1 for b in value)
    )
    return None if good else f"must be two numbers from 0 to below 1, got {value!r}"


@attrs.frozen(kw_only=True)
class Optimizer(Spec, ABC):
    """How gradients become updates; ``lr`` is the peak learning rate that a schedule scales."""

    family: ClassVar[str] = "optimizer"

    lr: float = field(default=1e-4, check=at_least(0))

    @abstractmethod
    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of these parameters."""


@attrs.frozen(kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101).

    The update is the same on every run of the same machine. By default parameters are updated one after another, in
    the same order of operations on every device and with no memory beyond the two moments; ``fused`` does it in one
    kernel, faster on a GPU with hundreds of adapters, equal up to the last bits.
    """

    kind: ClassVar[str] = "adamw"

    betas: tuple[float, float] = field(default=(0.9, 0.999), check=_betas)
    eps: float = field(default=1e-8, check=at_least(0))
    weight_decay: float = field(default=0.01, check=at_least(0))
    fused: bool = False

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.AdamW:
        """Return ``torch.optim.AdamW``; never its ``foreach`` form, which copies all parameters at every step."""
        import torch

        return torch.optim.AdamW(
            parameters,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            foreach=False,
            fused=self.fused,
        )
