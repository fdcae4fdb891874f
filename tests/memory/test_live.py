from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from musubi.memory.live import LiveBytes


def test_what_is_freed_counts_no_more_and_views_count_once() -> None:
    given = torch.zeros(8)

    with LiveBytes([given]) as live:
        made = given + 1
        seen = made.view(2, 4)
        del made
        alive = live.take()
        del seen
        after = live.take()

    assert (alive.start, alive.end, alive.peak) == (0, 32, 32)
    assert (after.start, after.end, after.peak, after.rise, after.change) == (32, 0, 32, 0, -32)


def test_what_autograd_keeps_counts_until_backward_has_used_it() -> None:
    x = torch.zeros(4, 4, requires_grad=True)

    with LiveBytes([x]) as live:
        result = x.exp().sum()
        forward = live.take()
        result.backward()
        live.put_away(x)
        del result
        backward = live.take()

    assert forward.end == 64 + 4
    assert backward.end == 0
    assert backward.gradients == 64


def test_operations_of_products_and_attention_are_counted_forward_and_backward() -> None:
    linear = nn.Linear(8, 16, bias=False)
    heads = torch.zeros(1, 2, 6, 4, requires_grad=True)

    with LiveBytes([linear.weight, heads]) as live:
        linear(torch.zeros(3, 8))
        product = live.take()
        mixed = functional.scaled_dot_product_attention(heads, heads, heads)
        attention = live.take()
        mixed.sum().backward()
        backward = live.take()

    assert product.flops == 2 * 3 * 8 * 16
    assert attention.flops == 2 * 2 * 2 * 6 * 6 * 4
    assert backward.flops == attention.flops * 5 // 2


def test_products_of_whole_numbers_are_counted_apart() -> None:
    with LiveBytes() as live:
        torch._int_mm(torch.ones(32, 16, dtype=torch.int8), torch.ones(16, 8, dtype=torch.int8))
        window = live.take()

    assert (window.flops, window.eight_bit) == (0, 2 * 32 * 16 * 8)
