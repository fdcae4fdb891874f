from __future__ import annotations

import logging
from contextlib import ExitStack

import pytest
import torch
from torch import Tensor, nn

from musubi import GradientCheckpointing
from musubi.memory.ring import Copier, HostCopier, streaming
from musubi.memory.streamable import streamable
from tests.memory import tiny
from tests.memory.copiers import LateCopier, ThreadedCopier
from tests.memory.tiny_blocks import stream, through

CPU = torch.device("cpu")


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
        stream(stack, model, streamed, slots=slots, copier=copier())

        for _ in range(2):
            assert tiny.equal(tiny.step(model, trained), expected)
            assert torch.equal(tiny.generation(model), picture)


def test_the_exit_gives_back_the_same_parameters_bit_for_bit() -> None:
    model = tiny.transformer()
    before, identities = tiny.snapshot(model), [id(p) for p in model.parameters()]
    hooks = _hooks(model)

    with ExitStack() as stack:
        stream(stack, model, 4)
        tiny.generation(model)

    assert tiny.unchanged(model, before)
    assert [id(p) for p in model.parameters()] == identities
    assert _hooks(model) == hooks


def test_a_state_dict_has_the_true_weights_at_any_moment() -> None:
    model = tiny.transformer()
    before = tiny.snapshot(model)

    with ExitStack() as stack:
        stream(stack, model, 5)
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
        stream(stack, model, 5)
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
        stream(stack, model, 4)
        with _failing(model.get_submodule("blocks.3"), where), pytest.raises(RuntimeError, match="on purpose"):
            tiny.step(model, trained)

        assert tiny.equal(tiny.step(model, trained), expected)


def test_skipped_blocks_do_no_harm() -> None:
    model = tiny.transformer()

    with torch.no_grad():
        expected = through(model, (0, 3, 2, 5, 5, 1), torch.ones(1, 8, 64))
        with ExitStack() as stack:
            stream(stack, model, 5)
            assert torch.equal(through(model, (0, 3, 2, 5, 5, 1), torch.ones(1, 8, 64)), expected)


@pytest.mark.parametrize("checkpointing", ["none", "all", "the model's own"])
def test_a_step_copies_each_streamed_block_twice_but_for_the_slots(checkpointing: str) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        if checkpointing == "all":
            stack.enter_context(GradientCheckpointing().place(model, tiny.PLACEMENT))
        if checkpointing == "the model's own":
            model.enable_gradient_checkpointing()  # type: ignore[operator]
        ring = stream(stack, model, 5)
        tiny.step(model, trained)
        before = ring.copies
        tiny.step(model, trained)

    assert ring.copies - before == 2 * (5 - 2)
    assert ring.statistics.unforeseen == 0


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

    assert [id(p) for p in streamable(block)] == [id(block.get_parameter("0.weight"))]


def test_generations_copy_each_block_once_but_for_those_that_stay_and_all_in_time() -> None:
    model = tiny.transformer()

    with ExitStack() as stack:
        ring = stream(stack, model, 5)
        tiny.generation(model)
        before = ring.statistics
        tiny.generation(model)
        after = ring.statistics

    assert after.copies - before.copies == 5
    assert after.unforeseen == 0
    assert after.copied_bytes == after.copies * (before.copied_bytes // before.copies)


def test_a_tensor_that_two_blocks_or_others_use_stays_on_the_device() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(4)))
    model.requires_grad_(requires_grad=False)
    tied = model.get_submodule("0.0")
    assert isinstance(tied, nn.Linear)
    model.get_submodule("1").register_module("0", tied)
    value = torch.randn(2, 8)
    expected, place = model(value), tied.weight.data_ptr()

    with streaming(model, list(model), device=CPU, copier=LateCopier()):
        assert torch.equal(model(value), expected)
        assert tied.weight.data_ptr() == place


def test_large_frozen_buffers_stream_and_passing_ones_do_not() -> None:
    class Block(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            values = torch.randn(3, 64, generator=torch.Generator().manual_seed(seed))
            self.register_buffer("state", values[:2].clone())
            self.register_buffer("passing", values[2:].clone(), persistent=False)

        def forward(self, value: Tensor) -> Tensor:
            return value * self.get_buffer("state").sum(0) + self.get_buffer("passing")

    model = nn.Sequential(*(Block(seed) for seed in range(4)))
    value, places = torch.randn(2, 64), [block.get_buffer("passing").data_ptr() for block in model]
    expected = model(value)

    with streaming(model, list(model), device=CPU, copier=LateCopier()) as (ring,):
        assert torch.equal(model(value), expected)
        assert [block.get_buffer("passing").data_ptr() for block in model] == places
        assert ring.statistics.blocks == 4


def test_a_run_ends_with_one_line_about_the_swapping(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny.transformer()

    with caplog.at_level(logging.INFO, logger="musubi"), ExitStack() as stack:
        stream(stack, model, 4)
        tiny.generation(model)

    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("swapped 4 blocks through 2 slots: 6 copies of ")


def test_a_view_into_a_slot_never_begins_where_its_storage_does() -> None:
    model, seen = tiny.transformer(), list[int]()
    for index in range(tiny.LAYERS):
        linear = model.get_submodule(f"blocks.{index}.attn1.to_q")
        linear.register_forward_pre_hook(lambda module, _: seen.append(module.weight.storage_offset()))

    with ExitStack() as stack:
        stream(stack, model, tiny.LAYERS)
        tiny.generation(model)

    assert seen == [256 // 4] * tiny.LAYERS


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
