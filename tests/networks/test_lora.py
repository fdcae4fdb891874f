from __future__ import annotations

import torch
from torch import nn

from musubi.networks.lora import LoRA


def test_a_layer_has_the_size_and_strength_asked_for() -> None:
    layer = LoRA(rank=4, alpha=2, dropout=0.1).layer(
        [nn.Linear(6, 3), nn.Linear(6, 5)], rank=4, generator=torch.Generator().manual_seed(0)
    )

    assert (tuple(layer.down.shape), tuple(layer.up.shape)) == ((4, 6), (8, 4))
    assert (layer.alpha, layer.dropout) == (2, 0.1)


def test_without_alpha_the_rank_given_decides() -> None:
    layer = LoRA(rank=4).layer([nn.Linear(6, 3)], rank=2, generator=torch.Generator())

    assert layer.weights().strength == 1
