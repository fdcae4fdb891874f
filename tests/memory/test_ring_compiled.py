"""Compiled blocks that swap: what moves the weights stays outside, so they are compiled as if they were resident."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from musubi import GradientCheckpointing
from musubi.memory.compiling import Compile
from musubi.memory.ring import streaming
from tests.memory import tiny
from tests.memory.copiers import LateCopier

# Dynamo's own, while it looks at a tensor.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
CPU = torch.device("cpu")


def graphs() -> tuple[int, int]:
    """Return how many graphs there are, and how often one was cut."""
    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


@contextmanager
def from_scratch() -> Generator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    counters.clear()


def blocks_of(model: nn.Module) -> list[nn.Module]:
    return list(model.get_submodule("blocks").children())


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "checkpointed"), [("eager", True), ("aot_eager", False)])
def test_swapping_makes_no_more_graphs_and_changes_nothing(backend: str, checkpointed: bool) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    def history(stack: ExitStack, *, swapped: bool) -> tuple[list[Tensor], tuple[int, int], tuple[int, int]]:
        stack.enter_context(from_scratch())
        stack.enter_context(Compile(backend=backend).place(model, tiny.PLACEMENT))
        if checkpointed:
            stack.enter_context(GradientCheckpointing().place(model, tiny.PLACEMENT))
        if swapped:
            some = [block for index, block in enumerate(blocks_of(model)) if index != 1]
            stack.enter_context(streaming(model, some, device=CPU, copier=LateCopier()))
        told = [*tiny.step(model, trained), tiny.generation(model)]
        first = graphs()
        told += [*tiny.step(model, trained), tiny.generation(model)]
        return told, first, graphs()

    with trained.attached(model):
        with ExitStack() as stack:
            expected, resident, _ = history(stack, swapped=False)
        with ExitStack() as stack:
            found, first, last = history(stack, swapped=True)

    assert tiny.equal(found, expected)
    assert first == last == resident
    assert resident[0] <= 3
    assert resident[1] == 0


def test_other_lengths_are_compiled_once_for_all_slots() -> None:
    model = tiny.transformer()
    others = torch.ones(1, 5, 64), torch.ones(1, 6, 64)

    def run(tokens: int) -> None:
        value = torch.ones(1, tokens, 64)
        for block in blocks_of(model):
            value = block(value, *others, None)

    def made(stack: ExitStack, lengths: tuple[int, ...], *, swapped: bool) -> tuple[int, int]:
        stack.enter_context(from_scratch())
        stack.enter_context(Compile(backend="eager").place(model, tiny.PLACEMENT))
        if swapped:
            stack.enter_context(streaming(model, blocks_of(model), device=CPU, slots=3, copier=LateCopier()))
        for tokens in lengths:
            run(tokens)
        return graphs()

    with torch.no_grad():
        with ExitStack() as stack:
            resident = made(stack, (8, 12), swapped=False)
        with ExitStack() as stack:
            swapped = made(stack, (8, 12, 16, 20, 8), swapped=True)

    assert resident == swapped == (2, 0)
