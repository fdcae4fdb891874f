from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from musubi import GradientCheckpointing
from musubi.memory.copiers import HostCopier, ReturningCopier
from musubi.memory.forwards import Forward, wrapped
from musubi.memory.offloading import Offload, offloading
from musubi.memory.ring import streaming
from tests.memory import tiny
from tests.memory.queued_copier import QueuedCopier
from tests.memory.strict_copier import StrictCopier

CPU = torch.device("cpu")
BOUNDARY = 8 * 64 * 4
"""Bytes of what goes from block to block: 8 tokens of width 64 in float32."""

COPIERS: dict[str, Callable[[], ReturningCopier]] = {
    "at once": HostCopier,
    "late": StrictCopier,
    "threaded": QueuedCopier,
}


def _offload(
    stack: ExitStack,
    model: nn.Module,
    *,
    copier: ReturningCopier | None = None,
    min_bytes: int = 1,
    depth: int = 2,
    keep_last: int = 0,
) -> Offload:
    blocks = list(model.get_submodule("blocks").children())
    chosen = blocks[: len(blocks) - keep_last]
    return stack.enter_context(
        offloading(chosen, device=CPU, min_bytes=min_bytes, depth=depth, copier=copier or StrictCopier())
    )


def _checkpointed(stack: ExitStack, model: nn.Module, *, every: int = 1) -> None:
    stack.enter_context(GradientCheckpointing(every=every).place(model, tiny.PLACEMENT))


@pytest.mark.parametrize("every", [None, 1, 2])
@pytest.mark.parametrize(("copier", "depth"), [("at once", 2), ("late", 1), ("late", 3), ("threaded", 2)])
def test_outputs_and_gradients_are_those_without_it(every: int | None, copier: str, depth: int) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        expected, picture = tiny.step(model, trained), tiny.generation(model)
        if every is not None:
            _checkpointed(stack, model, every=every)
        offload = _offload(stack, model, copier=COPIERS[copier](), depth=depth, keep_last=1)

        for _ in range(3):
            before = offload.packed
            assert tiny.equal(tiny.step(model, trained), expected)
            assert offload.packed > before
            assert torch.equal(tiny.generation(model), picture)


@pytest.mark.parametrize("streamed", [3, 6])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_works_inside_a_ring(streamed: int, checkpointing: bool) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)
    blocks = list(model.get_submodule("blocks").children())

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        expected, picture = tiny.step(model, trained), tiny.generation(model)
        if checkpointing:
            _checkpointed(stack, model)
        _offload(stack, model)
        stack.enter_context(streaming(model, blocks[:streamed], device=CPU, slots=2))

        for _ in range(2):
            assert tiny.equal(tiny.step(model, trained), expected)
            assert torch.equal(tiny.generation(model), picture)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_host_gets_each_storage_once(checkpointing: bool) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        if checkpointing:
            _checkpointed(stack, model)
        wanted = _distinct_storages(model, min_bytes=BOUNDARY)
        offload = _offload(stack, model, min_bytes=BOUNDARY)
        output = tiny.forward(model)

        assert offload.packed == len(wanted)
        assert offload.nbytes == sum(wanted)
        assert offload.pool.in_use == sum(-(-size // 256) * 256 for size in wanted)
        output.sum().backward()

    assert offload.pool.in_use == 0


def test_small_tensors_stay() -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        _checkpointed(stack, model)
        offload = _offload(stack, model, min_bytes=BOUNDARY + 1)
        tiny.step(model, trained)

    assert offload.packed == 0


@pytest.mark.parametrize("streamed", [0, 4])
def test_no_weight_ever_goes_whatever_memory_it_is_bound_to(streamed: int) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)
    blocks = list(model.get_submodule("blocks").children())
    copier, bound = StrictCopier(), set[int]()

    def note(block: nn.Module, _: object) -> None:
        bound.update(p.untyped_storage().data_ptr() for p in block.parameters())

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        _offload(stack, model, copier=copier)
        if streamed:
            stack.enter_context(streaming(model, blocks[:streamed], device=CPU, slots=2))
        for block in blocks:
            stack.callback(block.register_forward_pre_hook(note).remove)
        tiny.step(model, trained)
        copier.sources.clear()
        tiny.step(model, trained)

    adapters = {p.untyped_storage().data_ptr() for p in trained.parameters()}
    assert copier.sources
    assert not bound & set(copier.sources)
    assert not adapters & set(copier.sources)


def test_an_adapters_weight_goes_at_most_in_the_first_step() -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        offload = _offload(stack, model)
        packed = [offload.packed for _ in range(3) if tiny.step(model, trained)]

    assert packed[0] > packed[1] - packed[0] == packed[2] - packed[1]


@pytest.mark.parametrize("offloaded", [False, True])
def test_only_what_is_on_its_way_is_still_on_the_device_after_forward(offloaded: bool) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)
    inputs: list[StorageWeakRef] = []

    def note(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(StorageWeakRef(args[0].untyped_storage()))

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        _checkpointed(stack, model)
        if offloaded:
            _offload(stack, model, min_bytes=BOUNDARY, depth=2, keep_last=1)
        for block in model.get_submodule("blocks").children():
            stack.callback(block.register_forward_pre_hook(note).remove)
        output = tiny.forward(model)
        alive = [not storage.expired() for storage in inputs]
        output.sum().backward()

    # Of what goes, the last two are on their way: the text, and the input of the last block but one; the last one's
    # input never goes.
    assert sum(alive) == (3 if offloaded else 6)
    assert alive[-1]
    assert all(storage.expired() for storage in inputs)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_accumulate_and_several_forwards_may_precede_one_backward(checkpointing: bool) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    def gradients() -> list[Tensor]:
        trained.zero_grad()
        tiny.forward(model, 3).sum().backward()
        (tiny.forward(model, 4).mean() + tiny.forward(model, 5).square().mean()).backward()
        return tiny.gradients(trained)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        if checkpointing:
            _checkpointed(stack, model)
        expected = gradients()
        offload = _offload(stack, model)

        for _ in range(2):
            assert tiny.equal(gradients(), expected)
            assert offload.pool.in_use == 0


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_clean_step_follows_one_that_failed_half_way(where: str, checkpointing: bool) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        expected = tiny.step(model, trained)
        if checkpointing:
            _checkpointed(stack, model)
        offload = _offload(stack, model)
        with _failing(model.get_submodule("blocks.3"), where), pytest.raises(RuntimeError, match="on purpose"):
            tiny.step(model, trained)

        for _ in range(2):
            assert tiny.equal(tiny.step(model, trained), expected)
        assert offload.pool.in_use == 0


def test_nothing_goes_where_no_gradient_is_asked_for() -> None:
    model = tiny.transformer()

    with ExitStack() as stack:
        offload = _offload(stack, model)
        tiny.generation(model)

    assert offload.packed == 0


def test_a_graph_may_be_used_twice_and_after_the_end() -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)

    with ExitStack() as stack:
        stack.enter_context(trained.attached(model))
        expected = tiny.step(model, trained)[1:]
        with ExitStack() as inner:
            _offload(inner, model)
            trained.zero_grad()
            loss = tiny.forward(model).square().mean()
            loss.backward(retain_graph=True)
            assert tiny.equal(tiny.gradients(trained), expected)
            trained.zero_grad()
        loss.backward()

    assert tiny.equal(tiny.gradients(trained), expected)


def test_the_blocks_are_as_before_in_the_end() -> None:
    model = tiny.transformer()
    before = {name: dict(vars(module)) for name, module in model.named_modules()}

    with ExitStack() as stack:
        _offload(stack, model)
        assert "forward" in vars(model.get_submodule("blocks.0"))

    assert {name: dict(vars(module)) for name, module in model.named_modules()} == before


def _distinct_storages(model: nn.Module, *, min_bytes: int) -> list[int]:
    """Return the sizes of all large storages that the blocks save and that are not their own weights."""
    found: dict[int, tuple[StorageWeakRef, int]] = {}

    def around(block: nn.Module, forward: Forward) -> Forward:
        def run(*args: object, **kwargs: object) -> object:
            own = {p.untyped_storage().data_ptr() for p in block.parameters()}

            def pack(tensor: Tensor) -> Tensor:
                storage = tensor.untyped_storage()
                if storage.nbytes() >= min_bytes and storage.data_ptr() not in own:
                    reference = StorageWeakRef(storage)
                    found[reference.cdata] = reference, storage.nbytes()
                return tensor

            with saved_tensors_hooks(pack, lambda tensor: tensor):
                return forward(*args, **kwargs)

        return run

    with wrapped(model.get_submodule("blocks").children(), around):
        tiny.forward(model)
    return [size for _, size in found.values()]


@contextmanager
def _failing(block: nn.Module, where: str) -> Iterator[None]:
    def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    def fail_later(_module: nn.Module, _args: object, output: Tensor) -> None:
        output.register_hook(fail)

    handle = block.register_forward_hook(fail if where == "forward" else fail_later)
    try:
        yield
    finally:
        handle.remove()


class _Gated(nn.Module):
    """A block that saves results of its own, which autograd must not be given back with their graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, value: Tensor) -> Tensor:
        gate = torch.sigmoid(self.inner(value))
        told: Tensor = self.outer(gate) * torch.rsqrt(value.square().mean(-1, keepdim=True) + 1)
        return value + told


def _gated(blocks: Sequence[nn.Module], *, failing: bool = False) -> Tensor:
    value = torch.ones(32, 16, requires_grad=True)
    for number, block in enumerate(blocks):
        if failing and number == len(blocks) - 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        value = block(value)
    return value.sum()


@pytest.mark.parametrize("kept", [False, True], ids=["dropped", "kept by the caller"])
def test_a_graph_that_never_comes_back_costs_its_own_memory_and_no_more(kept: bool) -> None:
    blocks = [_Gated() for _ in range(3)]
    with offloading(blocks, device=CPU, min_bytes=1024, depth=2) as offload:
        _gated(blocks).backward()
        with suppress(torch.OutOfMemoryError):
            _gated(blocks, failing=True)
        graph = _gated(blocks) if kept else None
        sizes = set()
        for _ in range(4):
            _gated(blocks).backward()
            sizes.add(offload.pool.nbytes)

        assert len(sizes) == 1
        assert (offload.pool.in_use > 0) == (graph is not None)


def test_a_graph_can_come_back_after_backward_broke_off_and_the_context_has_ended() -> None:
    blocks = [_Gated() for _ in range(3)]
    expected = torch.autograd.grad(_gated(blocks), list(blocks[0].parameters()))
    asked: list[int] = []

    def fail_once(gradient: Tensor) -> None:
        asked.append(len(gradient))
        if len(asked) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with offloading(blocks, device=CPU, min_bytes=1024, depth=2):
        value = blocks[0](torch.ones(32, 16, requires_grad=True))
        value.register_hook(fail_once)
        total = blocks[2](blocks[1](value)).sum()
        with pytest.raises(torch.OutOfMemoryError):
            total.backward(retain_graph=True)

    found = torch.autograd.grad(total, list(blocks[0].parameters()))

    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
