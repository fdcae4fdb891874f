from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from musubi.networks.layers import LoRALayer


def _layer(rows: tuple[int, ...] = (6,), *, dropout: float = 0.0) -> LoRALayer:
    layer = LoRALayer(5, rows, rank=2, alpha=3.0, dropout=dropout)
    layer.draw(torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.up.normal_(generator=torch.Generator().manual_seed(1))
    return layer


def _input() -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(2))


def test_a_drawn_layer_has_no_effect_and_down_lies_within_its_bound() -> None:
    layer = LoRALayer(4096, (8,), rank=16, alpha=16.0)
    layer.draw(torch.Generator().manual_seed(0))

    assert layer.has_no_effect()
    assert 0.99 / 64 < layer.down.abs().max() <= 1 / 64


def test_the_delta_is_alpha_over_rank_times_up_times_down() -> None:
    layer, x = _layer(), _input()

    expected = x @ (1.5 * layer.up @ layer.down).T

    torch.testing.assert_close(layer.delta(x), expected)


def test_members_of_a_group_get_the_rows_of_the_whole_delta() -> None:
    layer, x = _layer((1, 2, 3)), _input()

    parts = torch.cat([layer.delta(x, part) for part in range(3)], dim=-1)

    torch.testing.assert_close(parts, x @ (1.5 * layer.up @ layer.down).T)


def test_gradients_of_a_group_are_those_of_one_matrix() -> None:
    split, whole, x = _layer((1, 2, 3)), _layer((6,)), _input()

    torch.cat([split.delta(x, part) for part in range(3)], dim=-1).square().sum().backward()
    whole.delta(x).square().sum().backward()

    torch.testing.assert_close(split.down.grad, whole.down.grad)
    torch.testing.assert_close(split.up.grad, whole.up.grad)


@pytest.mark.parametrize("rows", [(6,), (1, 2, 3)])
def test_dropout_acts_in_training_only(rows: tuple[int, ...]) -> None:
    layer, x = _layer(rows, dropout=0.5), _input()
    torch.manual_seed(0)

    dropped = layer.train().delta(x)
    kept = layer.eval().delta(x)

    assert not torch.equal(dropped, kept)
    torch.testing.assert_close(kept, _layer(rows).delta(x))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_members_of_a_group_share_a_mask_and_the_next_round_has_another(order: tuple[int, ...]) -> None:
    layer, x = _layer((6, 6, 6), dropout=0.5), _input().repeat(8, 1)
    with torch.no_grad():
        layer.up.copy_(layer.up[:6].repeat(3, 1))
    torch.manual_seed(0)

    first = [layer.delta(x, part) for part in order]
    second = [layer.delta(x, part) for part in order]

    assert torch.equal(first[0], first[1])
    assert torch.equal(first[0], first[2])
    assert not torch.equal(first[0], second[0])
    assert torch.equal(second[0], second[2])


def test_without_autocast_the_input_decides_the_precision() -> None:
    layer, x = _layer(), _input().bfloat16()

    assert layer.delta(x).dtype == torch.bfloat16
    assert layer.down.dtype == torch.float32


def test_under_autocast_its_precision_is_used() -> None:
    layer, x = _layer(), _input()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        delta = layer.delta(x)

    hidden = 1.5 * functional.linear(x.bfloat16(), layer.down.bfloat16())
    assert torch.equal(delta, functional.linear(hidden, layer.up.bfloat16()))


def test_weights_are_copies_and_can_be_loaded_back() -> None:
    layer = _layer()
    kept = layer.weights()
    with torch.no_grad():
        layer.up.zero_()

    assert not kept.zero_effect
    layer.load(kept)

    assert torch.equal(layer.up, kept.up)
    assert layer.alpha == 3.0
