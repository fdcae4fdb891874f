from __future__ import annotations

import pytest
import torch

from musubi.networks.dropouts import Dropouts
from musubi.networks.groups import Group
from musubi.networks.loading import layer_of
from musubi.networks.network import AdapterNetwork
from tests.networks.layer_cases import NAMES, NETWORKS, ROWS, WIDTH, applied, base_of, inputs, trained


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("network", NETWORKS, ids=NAMES)
def test_a_layer_comes_back_from_its_weights_alone(network: AdapterNetwork, rows: tuple[int, ...]) -> None:
    members, x = base_of(rows), inputs()
    layer = trained(network, members)

    again = layer_of(layer.weights(), Group("m", tuple(map(str, range(len(rows)))), WIDTH, rows))

    assert type(again) is type(layer)
    assert torch.equal(applied(again, members, x), applied(layer, members, x))
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in layer.named_parameters()}


@pytest.mark.parametrize("network", NETWORKS, ids=NAMES)
def test_a_layer_drops_what_it_is_told(network: AdapterNetwork) -> None:
    weights = trained(network, base_of((24,))).weights()

    layer = layer_of(weights, Group("m", ("m",), WIDTH, (24,)), dropouts=Dropouts(module=0.25))

    assert layer.dropouts == Dropouts(module=0.25)
