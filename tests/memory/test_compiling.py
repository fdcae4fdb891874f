from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

from musubi import ActivationOffload, Compile, FP8Scaled, GradientCheckpointing, Int8Scaled, LoRA, Targets
from musubi.core.errors import ConfigError
from musubi.memory.policy import MemoryPolicy, placed
from musubi.memory.ring import streaming
from musubi.networks.adapters import AdapterSet
from tests.memory import tiny
from tests.memory.compilation import breaks, forgetting, graphs, quietly

pytestmark = quietly

EAGER = Compile(backend="eager")
FIRST_AND_OTHERS = 2
"""Graphs of a class of block in training: for the block whose input has no gradient, and for all others."""


@pytest.fixture(autouse=True)
def forgotten() -> Generator[None]:
    with forgetting():
        yield


def _compiled(stack: ExitStack, model: nn.Module, policy: Compile = EAGER) -> None:
    stack.enter_context(policy.place(model, tiny.PLACEMENT))


@pytest.mark.parametrize(("policy", "backend"), [(FP8Scaled(), "eager"), (Int8Scaled(), "aot_eager")])
def test_real_blocks_are_one_uncut_graph_in_training_and_one_in_generating_whatever_is_around_them(
    policy: MemoryPolicy, backend: str, tmp_path: Path
) -> None:
    model = _shortened(tiny.loaded(tmp_path, [policy]).requires_grad_(requires_grad=False), 3)
    trained = tiny.adapters(model)
    blocks = list(model.get_submodule("blocks").children())
    around: list[tuple[MemoryPolicy, ...]] = [(GradientCheckpointing(),), (ActivationOffload(min_bytes=64),)]

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        expected, picture = tiny.step(model, trained), tiny.generation(model)
        _compiled(stack, model, Compile(backend=backend, fullgraph=True))
        assert tiny.equal(tiny.step(model, trained), expected)
        assert graphs() == FIRST_AND_OTHERS
        assert torch.equal(tiny.generation(model), picture)
        assert graphs() == FIRST_AND_OTHERS + 1

        stack.enter_context(streaming(model, blocks[1:], device=torch.device("cpu"), slots=2))
        for policies in around:
            with placed(model, policies, tiny.PLACEMENT):
                for _ in range(2):
                    assert tiny.equal(tiny.step(model, trained), expected)
                    assert torch.equal(tiny.generation(model), picture)
        assert graphs() == FIRST_AND_OTHERS + 1
        assert not breaks()


@pytest.mark.parametrize(
    ("network", "cut"), [(LoRA(rank=2, dropout=0.5, rank_dropout=0.5), False), (LoRA(rank=2, module_dropout=0.5), True)]
)
def test_only_the_dropout_of_whole_modules_cuts_a_graph(network: LoRA, cut: bool) -> None:
    model = _shortened(tiny.transformer(), 1)
    targets = Targets(exclude=(".*",), include=(r"blocks\.0\.ffn\.0",))
    network = network.replace(targets=targets)
    generator = torch.Generator().manual_seed(1)
    trained = AdapterSet.create(network, model, keys=tiny.KEYS, layout=tiny.LAYOUT, generator=generator)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        _compiled(stack, model)
        tiny.generation(model)

    assert bool(breaks()) is cut


def test_adapters_that_come_and_go_are_noticed() -> None:
    model = _shortened(tiny.transformer(), 2)
    trained = tiny.adapters(model)
    plain = tiny.generation(model)
    with trained.attached(model):
        adapted = tiny.generation(model)

    with ExitStack() as stack:
        _compiled(stack, model)
        for _ in range(2):
            assert torch.equal(tiny.generation(model), plain)
            with trained.attached(model):
                assert torch.equal(tiny.generation(model), adapted)
                with trained.switched_off():
                    assert torch.equal(tiny.generation(model), plain)
        assert graphs() == 3

    assert not torch.equal(plain, adapted)


def test_the_default_compiler_gives_the_same_but_for_rounding() -> None:
    model = _Chain(3)
    expected = model.step(5)

    with ExitStack() as stack:
        _compiled(stack, model, Compile())
        found = model.step(5)

    assert graphs() == FIRST_AND_OTHERS
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_blocks_that_are_all_given_gradients_share_one_graph() -> None:
    model = _Chain(5)

    with ExitStack() as stack:
        _compiled(stack, model)
        model.step(4, leaf=True)
        assert graphs() == 1
        model.step(4)
        assert graphs() == 2


def test_each_class_of_block_has_a_graph() -> None:
    class Other(_Block):
        def forward(self, hidden: Tensor, text: Tensor) -> Tensor:
            result: Tensor = self.inner(hidden) * self.text(text).mean(dim=1, keepdim=True)
            return result

    model = _Chain(2, others=[Other() for _ in range(3)])

    with ExitStack() as stack:
        _compiled(stack, model)
        model.step(4, leaf=True)

    assert graphs() == 2


def test_a_second_length_of_text_opens_the_length_and_a_third_compiles_nothing() -> None:
    model = _Chain(3)
    expected = {tokens: model.step(tokens) for tokens in (5, 7, 9, 11)}

    with ExitStack() as stack:
        _compiled(stack, model)
        for number, tokens in enumerate((5, 7, 9, 11, 5)):
            assert tiny.equal(model.step(tokens), expected[tokens])
            assert graphs() == FIRST_AND_OTHERS * min(2, number + 1)


@pytest.mark.parametrize(("dynamic", "wanted"), [(True, FIRST_AND_OTHERS), (False, 3 * FIRST_AND_OTHERS)])
def test_lengths_may_be_open_from_the_start_or_never(dynamic: bool, wanted: int) -> None:
    model = _Chain(3)

    with ExitStack() as stack:
        _compiled(stack, model, Compile(backend="eager", dynamic=dynamic))
        for tokens in (5, 7, 9):
            model.step(tokens)

    assert graphs() == wanted


def test_more_shapes_than_torch_allows_by_itself_are_still_compiled() -> None:
    model = _Chain(1)
    lengths = range(3, 3 + torch._dynamo.config.recompile_limit + 4)

    with ExitStack() as stack:
        _compiled(stack, model, Compile(backend="eager", dynamic=False))
        for tokens in lengths:
            model.step(tokens)

    assert graphs() == len(lengths)


def test_the_modules_keep_their_names_and_are_as_before_in_the_end() -> None:
    model = _Chain(2)
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    names = list(model.state_dict())

    with ExitStack() as stack:
        _compiled(stack, model)
        model.step(4)
        assert list(model.state_dict()) == names
        assert [name for name, _ in model.named_modules()] == list(before)

    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before


def test_a_forward_that_a_block_has_of_its_own_is_compiled_as_well() -> None:
    model = _Chain(3)
    own: Callable[..., Any] = model.blocks[1].forward
    model.blocks[1].forward = doubled = lambda *args: own(*args) * 2
    expected = model.step(4, leaf=True)

    with ExitStack() as stack:
        _compiled(stack, model)
        assert tiny.equal(model.step(4, leaf=True), expected)

    assert graphs() == 2
    assert model.blocks[1].forward is doubled


def test_torchs_settings_are_left_alone() -> None:
    model = _Chain(1)
    before = torch._dynamo.config.get_config_copy()

    with ExitStack() as stack:
        _compiled(stack, model)
        model.step(4)
        during = torch._dynamo.config.get_config_copy()

    assert before == during == torch._dynamo.config.get_config_copy()


def test_describing_it_loads_no_compiler() -> None:
    code = (
        "import sys\nfrom musubi import Compile\nCompile().to_toml()\n"
        "assert not any(name.startswith('torch') for name in sys.modules), 'torch is loaded'"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_backend_is_named_with_the_nearest() -> None:
    model = _Chain(1)

    with (
        pytest.raises(ConfigError, match="backend: torch has none called 'inductr'; did you mean 'inductor'"),
        ExitStack() as stack,
    ):
        _compiled(stack, model, Compile(backend="inductr"))

    assert "forward" not in vars(model.blocks[0])


@pytest.mark.parametrize("values", [{"mode": "reduce-overhead"}, {"mode": "max-autotune"}, {"backend": "cudagraphs"}])
def test_graphs_of_cuda_are_refused_as_blocks_share_them(values: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Compile.from_dict({"kind": "compile", **values})


def test_a_mode_is_inductors() -> None:
    with pytest.raises(ConfigError, match="mode: is one of inductor's, but the backend is eager"):
        Compile(mode="max-autotune-no-cudagraphs", backend="eager")


class _Block(nn.Module):
    """A small block that looks at a text of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.text = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, hidden: Tensor, text: Tensor) -> Tensor:
        result: Tensor = hidden + self.inner(hidden).sin() * self.text(text).mean(dim=1, keepdim=True)
        return result


class _Chain(nn.Module):
    """Some blocks, which are quicker to compile than real ones, and a training step of them."""

    def __init__(self, count: int, *, others: list[_Block] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([*(_Block() for _ in range(count)), *(others or [])])

    def step(self, tokens: int, *, leaf: bool = False) -> list[Tensor]:
        """Return the output and all gradients for a text of some length; ``leaf`` asks for those of the input, too."""
        generator = torch.Generator().manual_seed(tokens)
        hidden = torch.randn(1, 6, 8, generator=generator).requires_grad_(leaf)
        text = torch.randn(1, tokens, 8, generator=generator)
        self.zero_grad()
        value = hidden
        for block in self.blocks:
            value = block(value, text)
        value.sum().backward()
        return [value.detach(), *(p.grad.clone() for p in self.parameters() if p.grad is not None)]


def _shortened(model: nn.Module, count: int) -> nn.Module:
    blocks = model.get_submodule("blocks")
    assert isinstance(blocks, nn.ModuleList)
    del blocks[count:]
    return model
