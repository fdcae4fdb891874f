from __future__ import annotations

import pytest
from torch import nn

from musubi import ConfigError, DoRA, LoHa, LoKr, LoRA
from musubi.networks.rules import Sizes


def test_a_layer_has_the_size_strength_and_dropouts_asked_for() -> None:
    network = LoRA(rank=4, alpha=2, dropout=0.1, rank_dropout=0.2, module_dropout=0.3)

    layer = network.layer([nn.Linear(6, 3), nn.Linear(6, 5)], sizes=Sizes(rank=4, alpha=2.0))

    assert (tuple(layer.down.shape), tuple(layer.up.shape)) == ((4, 6), (8, 4))
    assert (layer.alpha, layer.dropouts.hidden, layer.dropouts.rank, layer.dropouts.module) == (2, 0.1, 0.2, 0.3)


def test_without_alpha_the_strength_is_one() -> None:
    assert LoRA(rank=4).strength == 1
    assert (LoRA(rank=32, alpha=16).title, LoKr(rank=2).title) == ("lora of rank 32", "lokr of rank 2")


@pytest.mark.parametrize("kind", [LoRA, DoRA, LoHa, LoKr])
def test_a_network_survives_toml(kind: type[LoRA]) -> None:
    network = kind(rank=3, alpha=2, rank_dropout=0.1, max_norm=1.0)

    assert kind.from_toml(network.to_toml()) == network


@pytest.mark.parametrize("factor", [0, -2, 1.5, True])
def test_a_factor_that_is_none_is_refused(factor: object) -> None:
    with pytest.raises(ConfigError, match="factor: must be -1 or a whole number"):
        LoKr(factor=factor)  # type: ignore[arg-type]
