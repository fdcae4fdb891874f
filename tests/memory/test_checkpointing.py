from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from musubi import GradientCheckpointing, LoHa, LoRA
from musubi.core.errors import ConfigError
from musubi.memory.checkpointing import Results
from musubi.memory.policy import FitContext, arrange
from musubi.memory.sizes import measure
from musubi.networks.adapters import AdapterSet
from musubi.networks.network import AdapterNetwork
from tests.memory import tiny


class Keyed(nn.Module):
    """A block that is called with keywords, nested tensors and things that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, hidden: Tensor, *, places: tuple[Tensor, Tensor | None], scale: object) -> tuple[Tensor, Tensor]:
        assert isinstance(scale, Scale)
        turned: Tensor = self.linear(hidden * places[0]) * scale.value
        return turned, hidden.sin()


class Scale:
    """Something that only a block understands."""

    def __init__(self, value: float) -> None:
        self.value = value


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


@pytest.mark.parametrize("keep", [(), ("attention", "matmul")])
@pytest.mark.parametrize("leaf", [False, True])
def test_blocks_may_be_called_in_any_way(keep: tuple[Results, ...], leaf: bool) -> None:
    model = nn.Module()
    model.blocks = nn.ModuleList(Keyed() for _ in range(3))
    places, scale = (torch.rand(4, 8), None), Scale(3.0)

    def gradients() -> list[Tensor]:
        model.zero_grad()
        hidden, total = torch.ones(4, 8).requires_grad_(leaf), torch.zeros(4, 8)
        for block in model.get_submodule("blocks").children():
            hidden, other = block(hidden, places=places, scale=scale)
            total = total + other
        (hidden + total).sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected = gradients()
    with GradientCheckpointing(keep=keep).place(model, tiny.PLACEMENT):
        found = gradients()

    assert len(expected) == 6
    assert tiny.equal(found, expected)


@pytest.mark.parametrize("network", [LoRA(rank=2, dropout=0.5, rank_dropout=0.3, module_dropout=0.3), LoHa(rank=2)])
@pytest.mark.parametrize("keep", [(), ("attention", "matmul")])
def test_adapters_drop_the_same_again(network: AdapterNetwork, keep: tuple[Results, ...]) -> None:
    model = tiny.transformer()
    generator = torch.Generator().manual_seed(1)
    trained = AdapterSet.create(network, model, keys=tiny.KEYS, layout=tiny.LAYOUT, generator=generator)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.normal_(std=0.1, generator=generator)

    def gradients() -> list[Tensor]:
        torch.manual_seed(5)
        trained.zero_grad()
        tiny.forward(model).square().mean().backward()
        return [p.new_zeros(()) if p.grad is None else p.grad.clone() for p in trained.parameters()]

    with trained.attached(model):
        expected = gradients()
        with GradientCheckpointing(keep=keep).place(model, tiny.PLACEMENT):
            found = gradients()

    assert tiny.equal(found, expected)
    assert any(gradient.any() for gradient in found)


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


@pytest.mark.parametrize(("keep", "more"), [(("attention",), 2 * 64 * 4), (("matmul",), (9 * 64 + 96) * 4)])
def test_the_plan_counts_what_a_checkpointed_block_keeps_beside_its_input(keep: tuple[Results, ...], more: int) -> None:
    sizes = measure(tiny.transformer(), tiny.LAYOUT, dtype=torch.float32)

    plain, kept = (GradientCheckpointing(keep=keeping).estimate(sizes) for keeping in ((), keep))

    assert {block.boundary for block in plain.blocks} == {64 * 4}
    assert {block.boundary - 64 * 4 for block in kept.blocks} == {more}
    assert (plain.kept, plain.checkpointed) == (kept.kept, kept.checkpointed) == (0, tiny.LAYERS)


@pytest.mark.parametrize("keep", ["attention", ["convolution"]])
def test_what_may_be_kept_is_named(keep: object) -> None:
    with pytest.raises(ConfigError, match=r"keep(\[0\])?: must be (a list|one of attention, matmul)"):
        GradientCheckpointing.from_dict({"kind": "gradient_checkpointing", "keep": keep})


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
