"""Two models through one ring: whichever is called, and whenever, it is as if it were alone on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import pytest
import torch
from torch import Tensor, nn

from musubi import GradientCheckpointing
from musubi.memory import slots as slots_module
from musubi.memory.copiers import Copier
from musubi.memory.experts import Experts, swapped_experts
from musubi.memory.slots import Slot
from musubi.memory.streamable import streamable
from musubi.networks.adapters import AdapterSet
from tests.memory import tiny
from tests.memory.copiers import LateCopier
from tests.memory.queued_copier import QueuedCopier

CPU = torch.device("cpu")
NAMES = ("high", "low")


def expert(number: int) -> nn.Module:
    """Return the tiny model with weights of its own."""
    model, generator = tiny.transformer(), torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return model


@pytest.fixture
def models() -> dict[str, nn.Module]:
    return {name: expert(number) for number, name in enumerate(NAMES)}


@pytest.fixture
def adapters(models: dict[str, nn.Module]) -> Iterator[dict[str, AdapterSet]]:
    made = {name: tiny.adapters(model) for name, model in models.items()}
    with ExitStack() as stack:
        for name, model in models.items():
            stack.enter_context(made[name].attached(model))
        yield made


def taking_turns(
    stack: ExitStack, models: dict[str, nn.Module], *, blocks: int = 4, copier: Copier | None = None
) -> Experts:
    return stack.enter_context(
        swapped_experts(models, layout=tiny.LAYOUT, blocks=blocks, device=CPU, copier=copier or LateCopier())
    )


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(("blocks", "copier"), [(1, LateCopier), (4, QueuedCopier), (6, LateCopier)])
def test_steps_and_generations_of_either_are_its_own(
    models: dict[str, nn.Module],
    adapters: dict[str, AdapterSet],
    blocks: int,
    copier: type[Copier],
    checkpointed: bool,
) -> None:
    expected = {name: tiny.step(models[name], adapters[name]) for name in NAMES}
    pictures = {name: tiny.generation(models[name]) for name in NAMES}
    random = Random(1)

    with ExitStack() as stack:
        if checkpointed:
            for model in models.values():
                stack.enter_context(GradientCheckpointing().place(model, tiny.PLACEMENT))
        experts = taking_turns(stack, models, blocks=blocks, copier=copier())
        for _ in range(6):
            name = random.choice(NAMES)
            assert tiny.equal(tiny.step(experts.use(name), adapters[name]), expected[name])
            for name in random.choices(NAMES, k=3):
                model = experts.use(name) if random.random() < 0.7 else models[name]
                assert torch.equal(tiny.generation(model), pictures[name])


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_other_may_be_used_between_forward_and_backward(
    models: dict[str, nn.Module], adapters: dict[str, AdapterSet], checkpointed: bool
) -> None:
    def gradients() -> list[Tensor]:
        for trained in adapters.values():
            trained.zero_grad()
        first = tiny.forward(models["high"]).square().mean()
        tiny.generation(models["low"])
        second = tiny.forward(models["low"], 3).square().mean()
        (first + second * 2).backward()
        return [gradient for name in NAMES for gradient in tiny.gradients(adapters[name])]

    expected = gradients()
    with ExitStack() as stack:
        if checkpointed:
            for model in models.values():
                stack.enter_context(GradientCheckpointing().place(model, tiny.PLACEMENT))
        taking_turns(stack, models)
        assert tiny.equal(gradients(), expected)
        assert tiny.equal(gradients(), expected)


def test_the_device_holds_one_of_them_and_the_slots(
    models: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    allocated: list[int] = []

    class Counted(Slot):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            allocated.append(self.nbytes)

    monkeypatch.setattr(slots_module, "Slot", Counted)
    whole = sum(parameter.nbytes for parameter in models["high"].parameters())
    block = sum(tensor.nbytes for tensor in streamable(models["high"].get_submodule("blocks.0")))

    with ExitStack() as stack:
        experts = taking_turns(stack, models, blocks=4)
        at_first = sum(allocated)
        for name in ("high", "low", "high"):
            tiny.generation(experts.use(name))

    assert sum(allocated) == at_first == experts.device_bytes
    assert experts.device_bytes < 1.02 * (whole - (4 - 2) * block)


def test_what_is_said_to_come_next_is_there_when_it_is_called(models: dict[str, nn.Module]) -> None:
    with ExitStack() as stack:
        experts = taking_turns(stack, models)
        for name in ("high", "low", "low", "high"):
            tiny.generation(experts.use(name))
        unforeseen, copies = experts.statistics.unforeseen, experts.statistics.copies
        tiny.generation(experts.use("high"))

    assert experts.statistics.unforeseen == unforeseen
    assert experts.statistics.copies - copies == 4


def test_in_the_end_both_are_as_they_were(models: dict[str, nn.Module]) -> None:
    before = {name: tiny.snapshot(model) for name, model in models.items()}

    with ExitStack() as stack:
        experts = taking_turns(stack, models)
        for name in NAMES:
            tiny.generation(experts.use(name))
            assert all(tiny.unchanged(models[other], before[other]) for other in NAMES)

    assert all(tiny.unchanged(models[name], before[name]) for name in NAMES)
    assert all(not module._forward_pre_hooks for model in models.values() for module in model.modules())
    with pytest.raises(KeyError):
        experts.use("middle")
