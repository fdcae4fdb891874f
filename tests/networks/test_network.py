from __future__ import annotations

import pytest
import torch

from musubi.core.errors import ConfigError
from musubi.networks.adapters import AdapterSet
from musubi.networks.lora import LoRA
from musubi.networks.network import AdapterNetwork as Network
from musubi.networks.targets import Targets
from tests.networks.small import KEYS, LAYOUT, NAMES, Small


def test_an_adapter_network_prepares_adapters_without_effect() -> None:
    trained = LoRA(rank=2).prepare(Small(), keys=KEYS, layout=LAYOUT, generator=torch.Generator())

    assert isinstance(trained, AdapterSet)
    assert (trained.names, trained.zero_effect, trained.limit_norms()) == (NAMES, True, None)
    assert not trained.base_weights()


@pytest.mark.parametrize("values", [{"rank": 0}, {"alpha": 0.0}, {"alpha": -1.0}, {"dropout": 1.0}, {"rank": 2.5}])
def test_impossible_sizes_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        LoRA.from_dict(values)


def test_the_strength_does_not_depend_on_the_rank_unless_alpha_says_so() -> None:
    assert LoRA(rank=4).strength == LoRA(rank=64).strength == 1
    assert LoRA(rank=32, alpha=16).strength == 0.5


def test_a_network_survives_toml() -> None:
    lora = LoRA(rank=8, alpha=4.0, dropout=0.1, targets=Targets(exclude=(r".*\.ffn\..*",)))

    assert Network.from_toml(lora.to_toml()) == lora
