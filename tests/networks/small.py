"""A small transformer whose checkpoint fuses what its classes split: both kinds of groups, no architecture needed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from musubi.architecture import Layout
from musubi.keymap import KeyMap, Rename
from musubi.networks.adapters import AdapterSet
from musubi.networks.lora import LoRA
from musubi.networks.network import AdapterNetwork


class Block(nn.Module):
    """Projections that are one matrix in the checkpoint, and an output layer that is its own."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_q, self.to_k = nn.Linear(dim, dim), nn.Linear(dim, dim + 3)
        self.norm = nn.LayerNorm(2 * dim + 3)
        self.out = nn.Linear(2 * dim + 3, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.out(self.norm(torch.cat([self.to_q(x), self.to_k(x)], dim=-1))))


class Small(nn.Module):
    """Two blocks between two embedders, which are not adapted by default."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.dim = dim
        self.embed = nn.Linear(dim, dim)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(2))
        self.head = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.head(x)
        return result


KEYS = KeyMap(
    (
        Rename("patch", "embed"),
        Rename("blocks.{}.attn.qk", ("blocks.{}.to_q", "blocks.{}.to_k")),
        Rename("blocks.{}.attn.proj_out", "blocks.{}.out"),
    )
)
LAYOUT = Layout(blocks=("blocks",), adapters=(r"blocks\..*",))
NAMES = ("blocks.0.attn.qk", "blocks.0.attn.proj_out", "blocks.1.attn.qk", "blocks.1.attn.proj_out")


def make_set(model: nn.Module, network: AdapterNetwork | None = None, *, seed: int = 0) -> AdapterSet:
    """Return fresh adapters of the small model."""
    generator = torch.Generator().manual_seed(seed)
    return AdapterSet.create(network or LoRA(rank=3), model, keys=KEYS, layout=LAYOUT, generator=generator)


def trained(adapters: AdapterSet, *, seed: int = 1) -> AdapterSet:
    """Fill every parameter with noise, as after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return adapters
