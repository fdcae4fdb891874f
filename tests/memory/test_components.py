from __future__ import annotations

import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import ClassVar

import attrs
import pytest
import torch
from torch import nn

from musubi import BlockSwap, Int8Scaled, VAETiling, Wan
from musubi.architecture import Component
from musubi.memory.components import loaded, policies_within
from musubi.memory.encoders import TextEncoderMemory
from musubi.memory.policy import MemoryPolicy, Phase, Placement
from musubi.testing.checkpoints import tiny_wan
from musubi.testing.toy import Toy

CPU = torch.device("cpu")
MEMORY = (TextEncoderMemory(policies=(BlockSwap(blocks=1), Int8Scaled())), VAETiling(), BlockSwap(blocks=20))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return tiny_wan(tmp_path_factory.mktemp("tiny"))


@attrs.frozen(kw_only=True)
class Watching(MemoryPolicy):
    """Note what is placed where, and when that ends."""

    kind: ClassVar[str] = "watching"
    phase: ClassVar[Phase] = Phase.SWAP

    seen: list[str] = attrs.field(factory=list)

    @contextmanager
    def place(self, model: nn.Module, placement: Placement) -> Generator[None]:
        self.seen.append(f"{type(model).__name__} as {placement.title}, training {placement.training}")
        yield
        self.seen.append("done")


@pytest.mark.parametrize("name", ["t5", "vae"])
def test_a_component_is_freed_when_the_work_is_done(name: str, tiny: Wan) -> None:
    component = tiny.component(name)

    with loaded(tiny.codec(), component, policies_within(MEMORY, component), device=CPU, dtype=torch.float32) as model:
        held = weakref.ref(model)
    del model

    assert held() is None


def test_a_component_is_freed_after_an_error_too(tiny: Wan) -> None:
    held: list[weakref.ref[nn.Module]] = []

    with pytest.raises(ZeroDivisionError):
        _fail(tiny, tiny.component("t5"), held)

    assert held[0]() is None


def _fail(tiny: Wan, component: Component, held: list[weakref.ref[nn.Module]]) -> None:
    within = policies_within(MEMORY, component)
    with loaded(tiny.codec(), component, within, device=CPU, dtype=torch.float32) as model:
        held.append(weakref.ref(model))
        raise ZeroDivisionError


def test_it_is_placed_for_the_length_of_the_work_and_not_for_training() -> None:
    policy = Watching()

    with loaded(Toy().codec(), Toy().component("text"), [policy], device=CPU, dtype=torch.float32):
        assert policy.seen == ["Embedding as the text, training False"]

    assert policy.seen[-1] == "done"


def test_a_component_that_nobody_tells_of_has_its_name_and_no_more() -> None:
    assert Toy().component("vae") == Component(name="vae")
    assert policies_within(MEMORY, Component(name="vae")) == ()
