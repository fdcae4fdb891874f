"""Which storages travel, when, and what else may happen to them, in blocks small enough to count by hand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import pytest
import torch
from torch import Tensor, nn

from musubi import GradientCheckpointing
from musubi.memory.copiers import ReturningCopier
from musubi.memory.offloading import Offload, offloading
from tests.memory import tiny
from tests.memory.strict_copier import StrictCopier


def test_what_blocks_share_goes_once_and_then_stays_with_its_owner() -> None:
    blocks, shared, value = _chain(5), torch.randn(1, 8, 16), torch.randn(1, 8, 16)

    with ExitStack() as stack:
        offload = _offloaded_chain(stack, blocks)
        _run(blocks, value, shared).sum().backward()
        first = offload.packed
        _run(blocks, value, shared).sum().backward()

    # Five inputs and what all share; then only what one block gave the next, as the caller still has the other two.
    assert first == 5 + 1
    assert offload.packed - first == 4


def test_tensors_in_keywords_and_tuples_go_as_well() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(16, 16)

        def forward(self, *, hidden: Tensor, rotation: tuple[Tensor, float]) -> Tensor:
            turned: Tensor = self.linear(hidden) * rotation[0] * rotation[1]
            return turned

    block, rotation = Block(), (torch.randn(1, 8, 16), 2.0)
    with ExitStack() as stack:
        offload = _offloaded_chain(stack, [block])
        block(hidden=torch.randn(1, 8, 16), rotation=rotation).sum().backward()

    assert offload.packed == 2
    assert block.linear.weight.grad is not None


def test_the_one_before_is_on_its_way_while_one_is_used() -> None:
    blocks, copier = _chain(5), StrictCopier()

    with ExitStack() as stack:
        _offloaded_chain(stack, blocks, copier=copier, depth=2)
        output = _run(blocks, torch.randn(1, 8, 16), torch.zeros(()))
        forward = list(copier.log)
        copier.log.clear()
        output.sum().backward()

    kinds = [kind for kind, _ in copier.log]
    # Two of the six storages (an input each, and what all share) are still here when backward begins.
    assert [kind for kind, _ in forward] == ["out"] * 3 + ["wait out", "out"] * 3 + ["wait out"]
    assert kinds.count("in") == kinds.count("wait in") == 4
    asked = waited = 0
    for kind in kinds:
        asked, waited = asked + (kind == "in"), waited + (kind == "wait in")
        assert asked >= min(4, waited + 1)


def test_a_change_in_place_is_noticed() -> None:
    blocks, shared = _chain(4), torch.randn(1, 8, 16)

    with ExitStack() as stack:
        _offloaded_chain(stack, blocks, depth=9)
        output = _run(blocks, torch.randn(1, 8, 16), shared)
        shared.add_(1)

        with pytest.raises(RuntimeError, match="changed in place"):
            output.sum().backward()


class _Step(nn.Module):
    """A block that saves its input and what all blocks share."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, value: Tensor, shared: Tensor) -> Tensor:
        result: Tensor = self.linear(value * shared)
        return result


def _chain(count: int) -> list[_Step]:
    return [_Step() for _ in range(count)]


def _offloaded_chain(
    stack: ExitStack, blocks: Sequence[nn.Module], *, copier: ReturningCopier | None = None, depth: int = 2
) -> Offload:
    model = nn.Module()
    model.blocks = nn.ModuleList(blocks)
    stack.enter_context(GradientCheckpointing().place(model, tiny.PLACEMENT))
    device, copier = torch.device("cpu"), copier or StrictCopier()
    return stack.enter_context(offloading(blocks, device=device, min_bytes=1, depth=depth, copier=copier))


def _run(blocks: Sequence[_Step], value: Tensor, shared: Tensor) -> Tensor:
    for block in blocks:
        value = block(value, shared)
    return value
