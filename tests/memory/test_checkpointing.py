from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi import GradientCheckpointing
from musubi.core.errors import ConfigError
from musubi.memory.policy import FitContext, arrange
from tests.memory import tiny


@pytest.mark.parametrize("every", [1, 2, 4])
def test_gradients_are_those_without_it(every: int) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with trained.attached(model):
        expected = tiny.step(model, trained)
        with GradientCheckpointing(every=every).place(model, tiny.PLACEMENT):
            found = tiny.step(model, trained)

    assert tiny.equal(found, expected)


def test_dropout_draws_the_same_again() -> None:
    model = nn.Module()
    blocks = [nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)) for _ in range(3)]
    model.blocks = nn.ModuleList(blocks)
    value = torch.randn(4, 8)

    def gradient() -> torch.Tensor:
        torch.manual_seed(0)
        model.zero_grad()
        nn.Sequential(*blocks)(value).sum().backward()
        found = model.get_parameter("blocks.0.0.weight").grad
        assert found is not None
        return found.clone()

    expected = gradient()
    with GradientCheckpointing().place(model, tiny.PLACEMENT):
        assert torch.equal(gradient(), expected)


def test_fewer_bytes_are_kept() -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with trained.attached(model):
        without = _kept(model)
        with GradientCheckpointing().place(model, tiny.PLACEMENT):
            kept = _kept(model)
        with GradientCheckpointing(every=2).place(model, tiny.PLACEMENT):
            half = _kept(model)

    assert kept < half < without
    assert kept < 0.2 * without


def test_the_blocks_are_as_before_in_the_end() -> None:
    model = tiny.transformer()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}

    with GradientCheckpointing().place(model, tiny.PLACEMENT):
        assert "forward" in vars(model.get_submodule("blocks.0"))

    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before


def test_more_than_there_are_blocks_is_refused() -> None:
    context = FitContext(title="a toy", layout=tiny.LAYOUT, blocks=6)

    with pytest.raises(ConfigError, match=r"memory\[0\]\.every: must be between 1 and 6 for a toy, got 7"):
        arrange([GradientCheckpointing(every=7)], context)


def _kept(model: nn.Module) -> int:
    sizes: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = tiny.forward(model)
    output.sum().backward()
    return sum(sizes.values())
