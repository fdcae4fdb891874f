"""Layers of every kind over Linears that are one matrix in the checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from musubi.networks.layers import AdapterLayer
from musubi.networks.loha import LoHa
from musubi.networks.lokr import LoKr
from musubi.networks.lora import DoRA, LoRA
from musubi.networks.network import AdapterNetwork
from musubi.networks.rules import Sizes

WIDTH = 12
ROWS = ((24,), (8, 8, 8), (5, 12, 7))
NETWORKS: tuple[AdapterNetwork, ...] = (
    LoRA(rank=3, alpha=2),
    DoRA(rank=3, alpha=2),
    LoHa(rank=3, alpha=2),
    LoKr(rank=1, alpha=2),
    LoKr(rank=2, alpha=2, factor=4),
    LoKr(rank=9, alpha=2),
)
NAMES = ("lora", "dora", "loha", "lokr", "lokr-4", "lokr-whole")


def base_of(rows: tuple[int, ...], *, seed: int = 0) -> list[nn.Linear]:
    """Return Linears whose rows together are the same for all ways of splitting."""
    generator = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(sum(rows), WIDTH, generator=generator), torch.randn(sum(rows), generator=generator)
    members: list[nn.Linear] = []
    for own, part in zip(weight.split(rows), bias.split(rows), strict=True):
        member = nn.Linear(WIDTH, len(own))
        member.weight.data, member.bias.data = own.clone(), part.clone()
        members.append(member.requires_grad_(requires_grad=False))
    return members


def trained(network: AdapterNetwork, members: list[nn.Linear]) -> AdapterLayer:
    """Return a layer with weights as after some training."""
    layer = network.layer(members, sizes=Sizes(rank=network.rank, alpha=network.alpha or 1.0))
    generator = torch.Generator().manual_seed(1)
    layer.draw(generator)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return layer


def applied(layer: AdapterLayer, members: list[nn.Linear], x: Tensor, weight: float = 1.0) -> Tensor:
    """Return the outputs of all members side by side."""
    return torch.cat([layer.change(m, x, m(x), part, weight) for part, m in enumerate(members)], dim=-1)


def inputs() -> Tensor:
    """Return two items of five tokens."""
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(2))
