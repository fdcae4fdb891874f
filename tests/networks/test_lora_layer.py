from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from musubi.networks.dropouts import Dropouts
from musubi.networks.lora_layer import LoRALayer


def _layer(rows: tuple[int, ...] = (6,), dropouts: Dropouts | None = None) -> LoRALayer:
    layer = LoRALayer(5, rows, rank=2, alpha=3.0, dropouts=dropouts)
    layer.draw(torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.up.normal_(generator=torch.Generator().manual_seed(1))
    return layer


def _input() -> Tensor:
    return torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(2))


def _changed(layer: LoRALayer, x: Tensor, part: int = 0, weight: float = 1.0) -> Tensor:
    """Return what a member with weights of zero gives."""
    still = nn.Linear(5, layer.rows[part], bias=False)
    nn.init.zeros_(still.weight)
    return layer.change(still, x, still(x), part, weight)


def test_a_drawn_layer_has_no_effect_and_down_lies_within_its_bound() -> None:
    layer = LoRALayer(4096, (8,), rank=16, alpha=16.0)
    layer.draw(torch.Generator().manual_seed(0))

    assert layer.has_no_effect()
    assert 0.99 / 64 < layer.down.abs().max() <= 1 / 64


def test_the_delta_is_alpha_over_rank_times_up_times_down() -> None:
    layer, x = _layer(), _input()

    expected = x @ (1.5 * layer.up @ layer.down).T

    torch.testing.assert_close(layer.delta(x), expected)
    torch.testing.assert_close(_changed(layer, x, weight=0.5), 0.5 * expected)


def test_members_of_a_group_get_the_rows_of_the_whole_delta() -> None:
    layer, x = _layer((1, 2, 3)), _input()

    parts = torch.cat([_changed(layer, x, part) for part in range(3)], dim=-1)

    torch.testing.assert_close(parts, x @ (1.5 * layer.up @ layer.down).T)


def test_gradients_of_a_group_are_those_of_one_matrix() -> None:
    split, whole, x = _layer((1, 2, 3)), _layer((6,)), _input()

    torch.cat([_changed(split, x, part) for part in range(3)], dim=-1).square().sum().backward()
    _changed(whole, x).square().sum().backward()

    torch.testing.assert_close(split.down.grad, whole.down.grad)
    torch.testing.assert_close(split.up.grad, whole.up.grad)


@pytest.mark.parametrize("rows", [(6,), (1, 2, 3)])
@pytest.mark.parametrize("dropouts", [Dropouts(hidden=0.5), Dropouts(rank=0.5)], ids=["hidden", "rank"])
def test_dropout_acts_in_training_only_and_keeps_the_mean(rows: tuple[int, ...], dropouts: Dropouts) -> None:
    layer, x = _layer(rows, dropouts), _input()
    torch.manual_seed(0)

    dropped = torch.stack([_changed(layer.train(), x) for _ in range(2000)])
    kept = _changed(layer.eval(), x)

    assert not torch.equal(dropped[0], kept)
    torch.testing.assert_close(kept, _changed(_layer(rows), x))
    torch.testing.assert_close(dropped.mean(dim=0), kept, atol=0.15, rtol=0.1)


@pytest.mark.parametrize("dropouts", [Dropouts(hidden=0.5), Dropouts(rank=0.5), Dropouts(module=0.5)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_members_of_a_group_share_what_is_dropped_and_the_next_round_drops_anew(
    order: tuple[int, ...], dropouts: Dropouts
) -> None:
    layer, x = _layer((6, 6, 6), dropouts), _input().repeat(8, 1, 1)
    with torch.no_grad():
        layer.up.copy_(layer.up[:6].repeat(3, 1))
    torch.manual_seed(1)

    rounds = [[_changed(layer, x, part) for part in order] for _ in range(6)]

    assert all(torch.equal(one[0], other) for one in rounds for other in one)
    assert not all(torch.equal(rounds[0][0], one[0]) for one in rounds)


def _identity(dropouts: Dropouts) -> LoRALayer:
    layer = LoRALayer(4, (4,), rank=4, alpha=4.0, dropouts=dropouts)
    with torch.no_grad():
        layer.down.copy_(torch.eye(4))
        layer.up.copy_(torch.eye(4))
    return layer


@pytest.mark.parametrize("tokens", [(10,), (2, 5), ()])
def test_a_dropped_rank_is_dropped_for_all_tokens_of_an_item(tokens: tuple[int, ...]) -> None:
    layer = _identity(Dropouts(rank=0.5))
    torch.manual_seed(0)

    gone = (layer.delta(torch.ones(6, *tokens, 4)) == 0).view(6, -1, 4)

    assert (gone == gone[:, :1]).all()
    assert not (gone == gone[:1]).all()


def test_a_dropped_activation_is_dropped_for_one_token() -> None:
    layer = _identity(Dropouts(hidden=0.5))
    torch.manual_seed(0)

    gone = layer.delta(torch.ones(6, 10, 4)) == 0

    assert not (gone == gone[:, :1]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_changes_the_output_in_its_own_type(dtype: torch.dtype) -> None:
    layer, x = _layer(), _input()
    base = nn.Linear(5, 6).requires_grad_(requires_grad=False)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer.change(base, x, base(x).to(dtype), 0, 1.0)

    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), base(x) + layer.delta(x), atol=0.05, rtol=0.05)


def test_without_autocast_the_input_decides_the_precision() -> None:
    layer, x = _layer(), _input().bfloat16()

    assert layer.delta(x).dtype == torch.bfloat16
    assert layer.down.dtype == torch.float32


def test_under_autocast_its_precision_is_used() -> None:
    layer, x = _layer(), _input()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        delta = layer.delta(x)

    hidden = functional.linear(x.bfloat16(), layer.down.bfloat16())
    assert torch.equal(delta, functional.linear(hidden, layer.up.bfloat16()) * 1.5)


def test_the_norm_is_the_dense_deltas_and_shrinking_scales_it() -> None:
    layer = _layer()
    norm = (1.5 * layer.up @ layer.down).norm()

    torch.testing.assert_close(layer.norm(), norm)
    layer.shrink(0.25)
    torch.testing.assert_close((1.5 * layer.up @ layer.down).norm(), 0.25 * norm)


def test_weights_are_copies_and_can_be_loaded_back() -> None:
    layer = _layer()
    kept = layer.weights()
    with torch.no_grad():
        layer.up.zero_()

    assert not kept.zero_effect
    layer.load(kept)

    assert torch.equal(layer.up, kept.up)
    assert layer.alpha == 3.0
