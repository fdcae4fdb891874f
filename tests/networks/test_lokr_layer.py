from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from musubi.networks.loha import LoHa
from musubi.networks.lokr import LoKr
from musubi.networks.lokr_layer import LoKrLayer, factors
from musubi.networks.network import AdapterNetwork
from tests.networks.layer_cases import applied, base_of, inputs, trained


def test_one_that_is_small_beside_its_rank_trains_its_second_factor_whole() -> None:
    layer = trained(LoKr(rank=9, alpha=2), base_of((24,)))

    assert isinstance(layer, LoKrLayer)
    assert set(dict(layer.named_parameters())) == {"lokr_w1", "lokr_w2"}
    assert (layer.strength, float(layer.weights().alpha)) == (1.0, 9.0)


def test_only_the_second_factor_starts_at_zero() -> None:
    layer = LoKrLayer.sized(100, (64,), rank=2, alpha=2.0)
    layer.draw(torch.Generator().manual_seed(0))

    assert [name for name, p in layer.named_parameters() if not p.any()] == ["lokr_w2_b"]
    assert layer.get_parameter("lokr_w1").abs().max() <= 1 / math.sqrt(10)


def test_both_factors_may_be_products_of_thin_matrices_as_lycoris_writes_them() -> None:
    shapes = {"lokr_w1_a": (4, 2), "lokr_w1_b": (2, 3), "lokr_w2_a": (6, 2), "lokr_w2_b": (2, 4)}
    layer, members = LoKrLayer(12, (24,), shapes=shapes, alpha=1.0, rank=2), base_of((24,))
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))

    merged = layer.weights().merged(members[0].weight)

    expected = nn.functional.linear(inputs(), merged, members[0].bias)
    torch.testing.assert_close(applied(layer, members, inputs()), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.norm().detach(), layer.weights().delta().norm())


@pytest.mark.parametrize(
    ("size", "factor", "expected"),
    [
        (128, -1, (8, 16)),
        (512, -1, (16, 32)),
        (1024, -1, (32, 32)),
        (128, 4, (4, 32)),
        (7, -1, (1, 7)),
        (12, 5, (3, 4)),
    ],
)
def test_sizes_are_split_as_square_as_allowed(size: int, factor: int, expected: tuple[int, int]) -> None:
    assert factors(size, factor) == expected


@given(size=st.integers(1, 3000), factor=st.sampled_from([-1, 1, 2, 4, 8, 16, 33]))
def test_the_factors_of_a_size_multiply_to_it_the_smaller_first(size: int, factor: int) -> None:
    small, large = factors(size, factor)

    assert small * large == size
    assert small <= large


@pytest.mark.parametrize(
    "network", [LoHa(rank=2, rank_dropout=0.5), LoKr(rank=1, rank_dropout=0.5)], ids=["loha", "lokr"]
)
def test_outputs_are_dropped_for_all_tokens_and_all_members_at_once(network: AdapterNetwork) -> None:
    members, x = base_of((12, 12)), inputs()
    layer = trained(network, members)
    torch.manual_seed(0)

    changed = applied(layer.train(), members, x) - torch.cat([m(x) for m in members], dim=-1)

    gone = changed == 0
    assert (gone == gone[:1, :1]).all()
    assert 0 < int(gone[0, 0].sum()) < 24
