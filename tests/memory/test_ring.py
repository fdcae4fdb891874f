from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from random import Random

import pytest
import torch
from torch import Tensor, nn

from musubi import GradientCheckpointing
from musubi.memory.ring import Copier, HostCopier, Ring, frozen_matrices, streaming
from musubi.memory.schedule import spread
from tests.memory import tiny

CPU = torch.device("cpu")
NAN = 0xFF
"""A byte that makes NaN of every float type when repeated."""


class LateCopier:
    """Poison a slot at once and fill it only when somebody waits for it, as late as a device may."""

    def copy(self, target: Tensor, source: Tensor) -> list[Tensor]:
        target.fill_(NAN)
        return [target, source]

    def wait(self, ticket: object) -> None:
        assert isinstance(ticket, list)
        if ticket:
            target, source = ticket
            target.copy_(source)
            ticket.clear()

    def close(self) -> None:
        return None


class ThreadedCopier:
    """Poison a slot at once and fill it from another thread after a random delay."""

    def __init__(self) -> None:
        self._random = Random(0)

    def copy(self, target: Tensor, source: Tensor) -> threading.Thread:
        target.fill_(NAN)
        delay = self._random.random() * 1e-3

        def later() -> None:
            time.sleep(delay)
            target.copy_(source)

        thread = threading.Thread(target=later)
        thread.start()
        return thread

    def wait(self, ticket: object) -> None:
        assert isinstance(ticket, threading.Thread)
        ticket.join()

    def close(self) -> None:
        return None


def _stream(stack: ExitStack, model: nn.Module, streamed: int, *, slots: int = 2, copier: Copier | None = None) -> Ring:
    blocks = [model.get_submodule(f"blocks.{index}") for index in spread(streamed, tiny.LAYERS)]
    (ring,) = stack.enter_context(streaming(model, blocks, device=CPU, slots=slots, copier=copier or LateCopier()))
    return ring


@pytest.mark.parametrize("checkpointing", ["none", "all", "every second", "the model's own"])
@pytest.mark.parametrize(
    ("streamed", "slots", "copier"),
    [(1, 2, HostCopier), (3, 1, LateCopier), (5, 2, LateCopier), (6, 3, LateCopier), (6, 2, ThreadedCopier)],
)
def test_outputs_and_gradients_are_those_of_the_resident_model(
    streamed: int, slots: int, checkpointing: str, copier: type[Copier]
) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)
    every = {"all": 1, "every second": 2}.get(checkpointing)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        expected, picture = tiny.step(model, trained), tiny.generation(model)
        if every is not None:
            stack.enter_context(GradientCheckpointing(every=every).place(model, tiny.PLACEMENT))
        if checkpointing == "the model's own":
            model.enable_gradient_checkpointing()  # type: ignore[operator]
        _stream(stack, model, streamed, slots=slots, copier=copier())

        for _ in range(2):
            assert tiny.equal(tiny.step(model, trained), expected)
            assert torch.equal(tiny.generation(model), picture)


def test_the_exit_gives_back_the_same_parameters_bit_for_bit() -> None:
    model = tiny.transformer()
    before, identities = tiny.snapshot(model), [id(p) for p in model.parameters()]
    hooks = _hooks(model)

    with ExitStack() as stack:
        _stream(stack, model, 4)
        tiny.generation(model)

    assert tiny.unchanged(model, before)
    assert [id(p) for p in model.parameters()] == identities
    assert _hooks(model) == hooks


def test_a_state_dict_has_the_true_weights_at_any_moment() -> None:
    model = tiny.transformer()
    before = tiny.snapshot(model)

    with ExitStack() as stack:
        _stream(stack, model, 5)
        assert tiny.unchanged(model, before)
        tiny.generation(model)
        assert tiny.unchanged(model, before)


def test_gradients_accumulate_and_several_forwards_may_precede_one_backward() -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    def gradients() -> list[Tensor]:
        trained.zero_grad()
        tiny.forward(model, 3).sum().backward()
        (tiny.forward(model, 4).mean() + tiny.forward(model, 5).square().mean()).backward()
        return tiny.gradients(trained)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        expected = gradients()
        with GradientCheckpointing().place(model, tiny.PLACEMENT):
            checkpointed = gradients()
        _stream(stack, model, 5)
        assert tiny.equal(gradients(), expected)
        stack.enter_context(GradientCheckpointing().place(model, tiny.PLACEMENT))
        assert tiny.equal(gradients(), checkpointed)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_clean_step_follows_one_that_failed_half_way(where: str) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)
    with trained.attached(model):
        expected = tiny.step(model, trained)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        _stream(stack, model, 4)
        with _failing(model.get_submodule("blocks.3"), where), pytest.raises(RuntimeError, match="on purpose"):
            tiny.step(model, trained)

        assert tiny.equal(tiny.step(model, trained), expected)


def test_skipped_blocks_do_no_harm() -> None:
    model = tiny.transformer()
    blocks = model.get_submodule("blocks")
    assert isinstance(blocks, nn.ModuleList)
    value = torch.randn(1, 8, 64)
    others = torch.randn(1, 5, 64), torch.randn(1, 6, 64), tiny.rotation(model)

    def run() -> Tensor:
        result = value
        for index in (0, 3, 2, 5, 5, 1):
            result = blocks[index](result, *others)
        return result

    with torch.no_grad():
        expected = run()
        with ExitStack() as stack:
            _stream(stack, model, 5)
            assert torch.equal(run(), expected)


def test_a_step_copies_each_streamed_block_twice_but_for_the_slots() -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        ring = _stream(stack, model, 5)
        tiny.step(model, trained)
        before = ring.copies
        tiny.step(model, trained)

    assert ring.copies - before == 2 * (5 - 2)


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


def test_blocks_of_different_shapes_have_rings_of_their_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(8, 8) if i % 3 else nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 8)) for i in range(9))
    )
    model.requires_grad_(requires_grad=False)
    value = torch.randn(2, 8)
    expected = model(value)

    with streaming(model, list(model), device=CPU, copier=LateCopier()) as rings:
        assert len(rings) == 2
        assert torch.equal(model(value), expected)


def test_what_trains_stays_on_the_device() -> None:
    block = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).requires_grad_(requires_grad=False)
    block.append(nn.Linear(8, 8))

    assert [id(p) for p in frozen_matrices(block)] == [id(block.get_parameter("0.weight"))]


def _hooks(model: nn.Module) -> list[tuple[int, int]]:
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


def _failing(block: nn.Module, where: str) -> ExitStack:
    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    def fail_later(_module: nn.Module, _args: object, output: Tensor) -> None:
        output.register_hook(fail)

    stack = ExitStack()
    stack.callback(block.register_forward_hook(fail if where == "forward" else fail_later).remove)
    return stack
