from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from musubi.networks.dropouts import Dropouts
from musubi.networks.layers import Round, kept, linear
from musubi.networks.lora_layer import LoRALayer


def test_a_round_gives_all_members_the_same_and_the_next_one_something_else() -> None:
    torch.manual_seed(0)
    shared = Round(3)
    drawn = []

    for part in (0, 1, 2, 0, 1, 2):
        shared.begin(part)
        drawn.append(float(shared.once("x", lambda: torch.rand(1))))
        shared.end()

    assert drawn[0] == drawn[1] == drawn[2] != drawn[3] == drawn[4] == drawn[5]


def test_a_member_that_comes_again_begins_a_new_round_though_others_never_came() -> None:
    shared, drawn = Round(2), [torch.ones(1), torch.zeros(1)]

    for value in drawn:
        shared.begin(0)
        assert shared.once("x", lambda value=value: value) is value  # type: ignore[misc]


def test_a_product_is_made_once_for_members_with_the_same_input_and_then_let_go() -> None:
    shared, made, x = Round(3), list[Tensor](), torch.ones(1)

    def double(value: Tensor) -> Tensor:
        made.append(2 * value)
        return made[-1]

    for part, value in enumerate((x, x, x.clone())):
        shared.begin(part)
        assert shared.product(value, double) == 2
        shared.end()

    kept = weakref.ref(made[0])
    assert len(made) == 2
    made.clear()
    assert kept() is None


def test_outside_of_a_round_nothing_is_remembered() -> None:
    shared, x = Round(2), torch.ones(1)

    assert shared.product(x, lambda value: value + 1) == 2
    assert shared.product(x, lambda value: value + 2) == 3
    assert shared.once("x", lambda: x) is x
    assert shared.once("x", lambda: x + 1) == 2


def test_a_skipped_module_leaves_its_output_untouched() -> None:
    layer = LoRALayer(4, (4,), rank=2, alpha=2.0, dropouts=Dropouts(module=0.5))
    with torch.no_grad():
        layer.up.fill_(1.0)
        layer.down.fill_(1.0)
    base, x = nn.Linear(4, 4), torch.ones(1, 4)
    output = base(x)
    torch.manual_seed(0)

    skipped = [layer.change(base, x, output, 0, 1.0) is output for _ in range(400)]

    assert 150 < sum(skipped) < 250
    assert not any(layer.eval().change(base, x, output, 0, 1.0) is output for _ in range(20))


def test_members_have_the_rows_in_order() -> None:
    layer = LoRALayer(4, (3, 1, 2), rank=1, alpha=1.0)

    assert [layer.span(part) for part in range(3)] == [(0, 3), (3, 4), (4, 6)]


def test_dropped_outputs_keep_the_mean() -> None:
    torch.manual_seed(0)

    factors = kept(20_000, 0.25, torch.zeros(1, dtype=torch.float64))

    assert factors.dtype == torch.float64
    assert set(factors.tolist()) == {0.0, 1 / 0.75}
    assert abs(float(factors.mean()) - 1) < 0.02


def test_a_product_has_the_type_of_its_input_or_autocasts() -> None:
    x, weight = torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(4, 3)

    assert linear(x, weight).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(x.float(), weight).dtype == torch.bfloat16
