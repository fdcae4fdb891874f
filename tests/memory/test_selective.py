from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from musubi import Compile, GradientCheckpointing
from musubi.memory.checkpointing import Results
from musubi.memory.policy import placed
from tests.memory import tiny
from tests.memory.compilation import forgetting, quietly

ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
ATTENTIONS = 2 * tiny.LAYERS
LINEARS = 10 * tiny.LAYERS
"""Four projections of each attention, and two of the feed-forward."""


class Executed(TorchDispatchMode):
    """Count the operators that are really executed: what comes from a cache does not get here."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def _executed(model: nn.Module, trained: Any) -> tuple[list[Tensor], Counter[str]]:
    with Executed() as executed:
        found = tiny.step(model, trained)
    return found, executed.counts


@quietly
@pytest.mark.parametrize("backend", [None, "eager", "aot_eager"])
def test_attention_that_is_kept_runs_once(backend: str | None) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)
    compiled = [] if backend is None else [Compile(backend=backend)]

    with forgetting(), trained.attached(model):
        expected = tiny.step(model, trained)
        with placed(model, [*compiled, GradientCheckpointing()], tiny.PLACEMENT):
            tiny.step(model, trained)
            again, computed = _executed(model, trained)
        with placed(model, [*compiled, GradientCheckpointing(keep=("attention",))], tiny.PLACEMENT):
            tiny.step(model, trained)
            found, kept = _executed(model, trained)

    assert tiny.equal(again, expected)
    assert tiny.equal(found, expected)
    assert computed[ATTENTION] == 2 * ATTENTIONS
    assert kept[ATTENTION] == ATTENTIONS


@pytest.mark.parametrize("keep", [("matmul",), ("attention", "matmul"), ("matmul", "attention")])
def test_products_that_are_kept_run_once_but_those_of_adapters_again(keep: tuple[Results, ...]) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with trained.attached(model):
        expected, whole = _executed(model, trained)
        with GradientCheckpointing().place(model, tiny.PLACEMENT):
            _, computed = _executed(model, trained)
        with GradientCheckpointing(keep=keep).place(model, tiny.PLACEMENT):
            found, kept = _executed(model, trained)

    assert tiny.equal(found, expected)
    # An adapter's second product is an addmm as well: the first time, when it is computed again, and its gradients.
    assert computed["addmm"] - kept["addmm"] >= LINEARS - tiny.LAYERS
    assert kept["addmm"] > whole["addmm"]
    assert kept[ATTENTION] == ATTENTIONS * (1 if "attention" in keep else 2)


def test_what_needs_no_matrix_is_kept_whatever_its_shape() -> None:
    value = torch.randn(1, 2, 40, 8, requires_grad=True)

    class Block(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return torch.nn.functional.scaled_dot_product_attention(value, value, value).sin()

    model = nn.Module()
    model.blocks = nn.ModuleList([Block()])
    with ExitStack() as stack:
        stack.enter_context(GradientCheckpointing(keep=("attention",)).place(model, tiny.PLACEMENT))
        executed = stack.enter_context(Executed())
        model.get_submodule("blocks.0")(value).sum().backward()

    assert executed.counts[ATTENTION] == 1


@pytest.mark.parametrize("keep", [("attention",), ("matmul",)])
def test_dropout_draws_the_same_again(keep: tuple[Results, ...]) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.dropout = nn.Linear(8, 8), nn.Dropout(0.5)

        def forward(self, value: Tensor) -> Tensor:
            first = self.dropout(self.linear(value))
            attended = torch.nn.functional.scaled_dot_product_attention(first, first, first)
            second: Tensor = self.dropout(self.linear(attended))
            return second

    model = nn.Module()
    model.blocks = nn.ModuleList(Block() for _ in range(3))
    value = torch.randn(1, 2, 4, 8)

    def gradients() -> list[Tensor]:
        torch.manual_seed(0)
        model.zero_grad()
        nn.Sequential(*model.get_submodule("blocks").children())(value).sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected = gradients()
    with GradientCheckpointing(keep=keep).place(model, tiny.PLACEMENT):
        found = gradients()

    assert len(expected) == 6
    assert tiny.equal(found, expected)
