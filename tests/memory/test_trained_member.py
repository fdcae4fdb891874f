"""Blocks that are trained while they swap: after any number of steps they are, bit for bit, those trained in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest
import torch
from torch import Tensor, nn

from musubi import Adafactor, AdamW, GradientCheckpointing
from musubi.memory.copiers import Copier, HostCopier
from musubi.memory.ring import Ring, streaming
from musubi.memory.schedule import spread
from musubi.optim.fused import FusedBackward
from musubi.optim.optimizers import Optimizer
from musubi.parameters import ParameterGroup
from tests.memory import tiny
from tests.memory.queued_copier import QueuedCopier

CPU = torch.device("cpu")
SLOTS = 3


def trained(dtype: torch.dtype = torch.float32, *, frozen: Sequence[str] = ()) -> nn.Module:
    """Return the tiny model with all of its weights trained but those whose names have one of these in them."""
    model = tiny.transformer().to(dtype)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    return model


def fused(model: nn.Module, spec: Optimizer, stack: ExitStack) -> torch.optim.Optimizer:
    """Return an optimiser of all trained parameters that updates them during backward."""
    parameters = tuple(parameter for parameter in model.parameters() if parameter.requires_grad)
    optimizer = spec.build((ParameterGroup(name="model", parameters=parameters),))
    stack.enter_context(FusedBackward(optimizer, max_grad_norm=1.0))
    return optimizer


def forward(model: nn.Module, seed: int) -> Tensor:
    latents, time, text = tiny.inputs(seed)
    dtype = next(model.parameters()).dtype
    output: Tensor = model(latents.to(dtype), time, text.to(dtype), return_dict=False)[0]
    return output


def backward(model: nn.Module, seed: int) -> Tensor:
    """Take one step: with a fused optimiser, backward is all of it."""
    output = forward(model, seed)
    output.float().square().mean().backward()
    return output.detach().clone()


def swap(
    stack: ExitStack, model: nn.Module, streamed: int, copier: Copier | None = None, *, slots: int = SLOTS
) -> tuple[Ring, ...]:
    blocks = [model.get_submodule(f"blocks.{index}") for index in spread(streamed, tiny.LAYERS)]
    return stack.enter_context(
        streaming(model, blocks, device=CPU, slots=slots, copier=copier or QueuedCopier(), write_back=True)
    )


def weights(model: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in model.state_dict().values()]


def history(model: nn.Module, spec: Optimizer, stack: ExitStack, steps: int = 3) -> list[Tensor]:
    """Train, draw and look at the weights in turns, and return everything that can be seen from outside."""
    optimizer = fused(model, spec, stack)
    told: list[Tensor] = []
    for step in range(steps):
        torch.manual_seed(step)  # for stochastic rounding
        told.append(backward(model, step))
        if step != 1:
            told += weights(model)
        with torch.no_grad():
            told.append(forward(model, 9))
    state = optimizer.state_dict()["state"]
    return told + [value for own in state.values() for value in own.values() if isinstance(value, Tensor)]


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(
    ("spec", "dtype"),
    [
        (Adafactor(lr=1e-2, fused_backward=True), torch.float32),
        (Adafactor(lr=1e-2, fused_backward=True), torch.bfloat16),
        (AdamW(lr=1e-2, fused_backward=True), torch.float32),
    ],
)
@pytest.mark.parametrize(
    ("streamed", "slots", "copier"), [(5, 3, QueuedCopier), (6, 2, QueuedCopier), (3, 1, HostCopier)]
)
def test_training_ends_with_the_same_weights(
    *, streamed: int, slots: int, copier: Callable[[], Copier], spec: Optimizer, dtype: torch.dtype, checkpointed: bool
) -> None:
    model, other = trained(dtype), trained(dtype)
    with ExitStack() as stack:
        expected = history(model, spec, stack)

    with ExitStack() as stack:
        if checkpointed:
            stack.enter_context(GradientCheckpointing().place(other, tiny.PLACEMENT))
        swap(stack, other, streamed, copier(), slots=slots)
        found = history(other, spec, stack)

    assert tiny.equal(found, expected)
    assert tiny.unchanged(other, tiny.snapshot(model))
    assert not tiny.unchanged(other, tiny.snapshot(tiny.transformer().to(dtype)))


def test_what_is_frozen_in_a_block_streams_beside_what_is_trained() -> None:
    spec = AdamW(lr=1e-2, fused_backward=True)
    model, other = trained(frozen=("attn2", "blocks.2")), trained(frozen=("attn2", "blocks.2"))
    with ExitStack() as stack:
        expected = history(model, spec, stack)

    with ExitStack() as stack:
        swap(stack, other, 6)
        assert tiny.equal(history(other, spec, stack), expected)


def test_each_block_is_copied_back_once_a_step() -> None:
    model = trained()
    with ExitStack() as stack:
        (ring,) = swap(stack, model, 6)
        fused(model, Adafactor(lr=1e-2, fused_backward=True), stack)
        backward(model, 0)
        before = ring.statistics
        backward(model, 1)
        after = ring.statistics

    assert after.returned - before.returned == 6
    assert after.copies - before.copies == 2 * (6 - SLOTS)
    assert after.unforeseen == before.unforeseen
    assert after.late == 0


def test_a_block_leaves_its_slot_when_its_copy_back_has_had_the_time_of_another() -> None:
    model, copier = trained(), QueuedCopier()
    with ExitStack() as stack:
        swap(stack, model, 6, copier)
        fused(model, Adafactor(lr=1e-2, fused_backward=True), stack)
        backward(model, 0)
        copier.order.clear()
        backward(model, 1)

    assert "".join({"in": "i", "back": "b"}[what] for what in copier.order[:9]) == "iii" + "bb" + "ib" + "ib"


def test_the_weights_are_true_for_whoever_reads_them_while_backward_runs() -> None:
    def seen(model: nn.Module, swapped: bool) -> list[Tensor]:
        told: list[Tensor] = []
        with ExitStack() as stack:
            if swapped:
                swap(stack, model, 6)
            fused(model, AdamW(lr=1e-2, fused_backward=True), stack)
            for index in range(tiny.LAYERS):
                bias = model.get_parameter(f"blocks.{index}.attn1.to_q.bias")
                handle = bias.register_post_accumulate_grad_hook(lambda _: told.extend(weights(model)))
                stack.callback(handle.remove)
            for step in range(2):
                backward(model, step)
        return told

    assert tiny.equal(seen(trained(), swapped=True), seen(trained(), swapped=False))


@pytest.mark.parametrize("layer", ["ffn.net.2", "attn1.to_q"])
def test_a_gradient_that_comes_when_its_block_has_left_is_used_all_the_same(layer: str) -> None:
    def train(model: nn.Module, swapped: bool) -> tuple[list[Tensor], int]:
        weight = model.get_parameter(f"blocks.4.{layer}.weight")
        patches = model.get_submodule("patch_embedding")
        with ExitStack() as stack:
            rings = swap(stack, model, 6) if swapped else ()
            # Used long before its block, so that its gradient is complete long after it.
            handle = patches.register_forward_hook(lambda _m, _i, output: output * weight.sum())
            stack.callback(handle.remove)
            told = history(model, AdamW(lr=1e-2, fused_backward=True), stack)
            return told, sum(ring.statistics.late for ring in rings)

    found, late = train(trained(), swapped=True)
    expected, _ = train(trained(), swapped=False)

    assert tiny.equal(found, expected)
    assert late == 3


def test_blocks_that_get_no_gradient_keep_their_weights() -> None:
    def train(model: nn.Module, swapped: bool) -> list[Tensor]:
        blocks = model.get_submodule("blocks")
        assert isinstance(blocks, nn.ModuleList)
        others = torch.randn(1, 5, 64), torch.randn(1, 6, 64), tiny.rotation(model)
        told: list[Tensor] = []
        with ExitStack() as stack:
            if swapped:
                swap(stack, model, 6)
            fused(model, AdamW(lr=1e-2, weight_decay=0.1, fused_backward=True), stack)
            for order in ((0, 3, 2), (5, 5, 1), (4, 0, 3)):
                value = torch.ones(1, 8, 64)
                for index in order:
                    value = blocks[index](value, *others)
                value.square().mean().backward()
                told += weights(model)
        return told

    torch.manual_seed(5)
    expected = train(trained(), swapped=False)
    torch.manual_seed(5)

    assert tiny.equal(train(trained(), swapped=True), expected)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_training_goes_on_exactly_after_a_step_that_failed_half_way(where: str) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    def fail_later(_module: nn.Module, _args: object, output: Tensor) -> None:
        output.register_hook(fail)

    def train(model: nn.Module, swapped: bool) -> list[Tensor]:
        with ExitStack() as stack:
            if swapped:
                swap(stack, model, 6)
            fused(model, AdamW(lr=1e-2, fused_backward=True), stack)
            backward(model, 0)
            hook = fail if where == "forward" else fail_later
            handle = model.get_submodule("blocks.2").register_forward_hook(hook)
            with pytest.raises(RuntimeError, match="on purpose"):
                backward(model, 1)
            handle.remove()
            model.zero_grad()
            half_way = weights(model)
            backward(model, 2)
            return half_way + weights(model)

    assert tiny.equal(train(trained(), swapped=True), train(trained(), swapped=False))


def test_weights_that_are_loaded_or_lent_between_steps_are_those_that_compute() -> None:
    def train(model: nn.Module, swapped: bool) -> list[Tensor]:
        other = {name: value * 1.01 for name, value in trained().state_dict().items()}
        with ExitStack() as stack:
            if swapped:
                swap(stack, model, 6)
            fused(model, AdamW(lr=1e-2, fused_backward=True), stack)
            backward(model, 0)
            told = weights(model)
            model.load_state_dict(other)
            with torch.no_grad():
                told.append(forward(model, 1))
                for name, parameter in model.named_parameters():
                    parameter.detach().copy_(other[name] * 0.99)
                told.append(forward(model, 1))
            backward(model, 2)
            return told + weights(model)

    assert tiny.equal(train(trained(), swapped=True), train(trained(), swapped=False))


def test_the_exit_keeps_what_was_learned_and_takes_its_hooks_along() -> None:
    model = trained()
    with ExitStack() as stack:
        swap(stack, model, 6)
        fused(model, AdamW(lr=1e-2, fused_backward=True), stack)
        backward(model, 0)
        inside = tiny.snapshot(model)

    assert tiny.unchanged(model, inside)
    assert all(not parameter._post_accumulate_grad_hooks for parameter in model.parameters())
