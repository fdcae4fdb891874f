"""Blocks are heard in whatever order they run, with whatever goes between them."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from musubi import GradientCheckpointing
from musubi.memory.ring import streaming
from tests.memory import tiny
from tests.memory.copiers import LateCopier
from tests.memory.tiny_blocks import stream, through

CPU = torch.device("cpu")


@settings(deadline=None, max_examples=25)
@given(
    orders=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=7), min_size=1, max_size=2),
    slots=st.integers(1, 3),
    streamed=st.integers(2, 6),
    checkpointed=st.booleans(),
)
def test_gradients_are_right_in_any_order_of_blocks(
    orders: list[list[int]], slots: int, streamed: int, checkpointed: bool
) -> None:
    def gradients(model: nn.Module) -> list[Tensor]:
        starts = [torch.ones(1, 8, 64).requires_grad_() for _ in orders]
        torch.stack(
            [through(model, order, start).mean() for order, start in zip(orders, starts, strict=True)]
        ).sum().backward()
        return [start.grad for start in starts if start.grad is not None]

    model = tiny.transformer()
    expected = gradients(model)
    with ExitStack() as stack:
        if checkpointed:
            stack.enter_context(GradientCheckpointing().place(model, tiny.PLACEMENT))
        stream(stack, model, streamed, slots=slots)
        for _ in range(2):
            assert tiny.equal(gradients(model), expected)


def test_blocks_called_with_keywords_are_followed_too() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, *, hidden: Tensor) -> tuple[Tensor, Tensor]:
            return torch.tanh(self.linear(hidden)), hidden

    torch.manual_seed(0)
    model = nn.ModuleList([Block() for _ in range(5)]).requires_grad_(requires_grad=False)

    def gradient() -> Tensor:
        start = torch.ones(2, 8).requires_grad_()
        value = start
        for block in model:
            first, second = block(hidden=value)
            value = first + second
        value.square().sum().backward()
        assert start.grad is not None
        return start.grad

    expected = gradient()
    with streaming(model, list(model), device=CPU, copier=LateCopier()):
        assert torch.equal(gradient(), expected)


def test_the_gradient_of_what_all_blocks_share_is_added_up_in_the_same_order() -> None:
    model = tiny.transformer()

    def gradient() -> Tensor:
        text = torch.ones(1, 5, 64).requires_grad_()
        value = torch.ones(1, 8, 64)
        for block in model.get_submodule("blocks").children():
            value = block(value, text, torch.full((1, 6, 64), 0.1), tiny.rotation(model))
        value.sum().backward()
        assert text.grad is not None
        return text.grad

    expected = gradient()
    with ExitStack() as stack:
        stream(stack, model, 5)
        assert torch.equal(gradient(), expected)


class _Streams(nn.Module):
    """Two streams, as double blocks have them; some blocks hand one of them on as it is, or changed in place."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.linear, self.other, self.way = nn.Linear(8, 8), nn.Linear(8, 8), way

    def forward(self, hidden: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(self.linear(hidden) + self.other(text))
        if self.way == "handed on":
            return hidden, text
        if self.way == "in place":
            return hidden, text.add_(self.linear(hidden))
        return hidden, torch.tanh(self.other(text)) * 1.5


@settings(deadline=None, max_examples=30)
@given(
    ways=st.lists(st.sampled_from(["made", "handed on", "in place"]), min_size=2, max_size=7), slots=st.integers(1, 3)
)
def test_streams_may_pass_blocks_unchanged(ways: list[str], slots: int) -> None:
    torch.manual_seed(0)
    model = nn.ModuleList([_Streams(way) for way in ways]).requires_grad_(requires_grad=False)

    def gradients() -> list[Tensor | None]:
        starts = torch.ones(2, 8).requires_grad_(), torch.full((2, 8), 0.5).requires_grad_()
        hidden, text = starts[0] * 1, starts[1] * 1
        for block in model:
            hidden, text = block(hidden, text)
        (hidden.square().sum() + text.sum()).backward()
        return [start.grad for start in starts]

    expected = gradients()
    with streaming(model, list(model), device=CPU, slots=slots, copier=LateCopier()):
        found = gradients()

    assert all(
        one is not None and other is not None and torch.equal(one, other)
        for one, other in zip(found, expected, strict=True)
    )
