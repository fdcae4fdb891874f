"""What may happen to a model between two training steps, and all that it tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from musubi.networks.adapters import AdapterSet
from tests.contract.memory_cases import BLOCKS, Case

Told = list[Tensor | None]


def history(made: Case) -> Told:
    """Return all outputs and gradients of a history that has everything that may happen between two steps."""
    told: Told = []
    told += step(made, 1, 2)
    told.append(generated(made, 3))
    told += _joint_step(made, 4, 5)
    with _skipped(made, {1, BLOCKS - 1}):
        told += step(made, 6)
        told.append(generated(made, 6))
    for where in ("forward", "backward"):
        with _failing(made.blocks[2], where), pytest.raises(RuntimeError, match="on purpose"):
            step(made, 7)
        told += step(made, 7)
    return told


def step(made: Case, *seeds: int) -> Told:
    """Return the outputs for several batches, and the gradients that add up over them."""
    made.trained.zero_grad()
    outputs = [_predicted(made, seed) for seed in seeds[:1]]
    outputs[0].square().mean().backward()
    for seed in seeds[1:]:
        outputs.append(_predicted(made, seed))
        outputs[-1].square().mean().backward()
    return [*(output.detach() for output in outputs), *_gradients(made.trained)]


def _joint_step(made: Case, first: int, second: int) -> Told:
    """Return the outputs of two forwards, and the gradients of the one backward through both."""
    made.trained.zero_grad()
    outputs = [_predicted(made, seed) for seed in (first, second)]
    (outputs[0].square().mean() + outputs[1].mean()).backward()
    return [*(output.detach() for output in outputs), *_gradients(made.trained)]


@torch.no_grad()
def generated(made: Case, seed: int) -> Tensor:
    return _predicted(made, seed)


def _predicted(made: Case, seed: int) -> Tensor:
    inputs = made.family.inputs(seed, dtype=made.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=made.dtype == torch.bfloat16):
        return made.family.predict(made.model, inputs).float()


def _gradients(trained: AdapterSet) -> Told:
    """Return copies of all gradients; None for an adapter that nothing went through."""
    return [None if p.grad is None else p.grad.clone() for p in trained.parameters()]


def same(one: Told, other: Told) -> bool:
    """Tell whether two histories are the same, bit for bit; what has no gradient in one has none in the other."""

    def alike(a: Tensor | None, b: Tensor | None) -> bool:
        return a is b is None or (a is not None and b is not None and torch.equal(a, b))

    return len(one) == len(other) and all(map(alike, one, other))


@contextmanager
def _skipped(made: Case, indices: set[int]) -> Iterator[None]:
    """Leave some blocks out, as layer dropping and skip-layer guidance do."""
    skipped = {id(block) for index, block in enumerate(made.blocks) if index in indices}
    lists = {path: made.model.get_submodule(path) for path in made.family.spec.layout.blocks}
    try:
        for path, blocks in lists.items():
            setattr(made.model, path, nn.ModuleList(b for b in blocks.children() if id(b) not in skipped))
        yield
    finally:
        for path, blocks in lists.items():
            setattr(made.model, path, blocks)


@contextmanager
def _failing(block: nn.Module, where: str) -> Iterator[None]:
    """Let a block's forward or backward fail."""

    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    def fail_later(_module: nn.Module, _args: object, output: object) -> None:
        next(t for t in pytree.tree_leaves(output) if isinstance(t, Tensor) and t.requires_grad).register_hook(fail)

    handle = block.register_forward_hook(fail if where == "forward" else fail_later)
    try:
        yield
    finally:
        handle.remove()
