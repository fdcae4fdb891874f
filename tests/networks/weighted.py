"""Adapters of every kind with random numbers."""

from __future__ import annotations

import torch

from musubi.networks.weights import AdapterWeights, LoHaWeights, LoKrWeights, LoRAWeights

KINDS = ("lora", "dora", "loha", "lokr", "lokr_whole")


def lora(out: int = 6, width: int = 8, *, rank: int = 3, alpha: float = 2.0, seed: int = 0) -> LoRAWeights:
    """Return a LoRA."""
    generator = torch.Generator().manual_seed(seed)
    down, up = torch.randn(rank, width, generator=generator), torch.randn(out, rank, generator=generator)
    return LoRAWeights(down, up, torch.tensor(alpha))


def weights_of(kind: str, out: int = 6, width: int = 8, *, rank: int = 2, alpha: float = 3.0) -> AdapterWeights:
    """Return an adapter for a weight (out, width), both even, of a kind."""
    generator = torch.Generator().manual_seed(len(kind))

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    scalar = torch.tensor(alpha)
    match kind:
        case "lora":
            return LoRAWeights(draw(rank, width), draw(out, rank), scalar)
        case "dora":
            return LoRAWeights(draw(rank, width), draw(out, rank), scalar, draw(out).abs())
        case "loha":
            return LoHaWeights(draw(out, rank), draw(rank, width), draw(out, rank), draw(rank, width), scalar)
        case "lokr":
            thin = draw(out // 2, 1), draw(1, width // 2)
            return LoKrWeights(alpha=scalar, w1=draw(2, 2), w2_a=thin[0], w2_b=thin[1])
        case _:
            return LoKrWeights(alpha=scalar, w1=draw(2, 2), w2=draw(out // 2, width // 2))
