from __future__ import annotations

import re

import pytest
from torch import nn

from musubi.architectures.wan.detect import describe
from musubi.architectures.wan.facts import DitFacts, TextFacts, published_facts
from musubi.architectures.wan.keys import DIT, UMT5
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.tasks import PUBLISHED, Task
from musubi.architectures.wan.text import empty_umt5
from musubi.architectures.wan.transformer import empty_transformer
from musubi.keymap import KeyMap
from tests.architectures.wan import published
from tests.architectures.wan.fakes import header_only

COUNTS = {
    "t2v_1_3b": (825, 300),
    "t2v_14b": (1095, 400),
    "t2i_14b": (1095, 400),
    "i2v_14b": (1303, 480),
    "flf2v_14b": (1304, 480),
    "t2v_1_3b_control": (983, 360),
    "t2v_14b_control": (1303, 480),
    "i2v_14b_control": (1303, 480),
    "t2v_a14b": (1095, 400),
    "i2v_a14b": (1095, 400),
    "ti2v_5b": (825, 300),
}
"""How many tensors a published transformer has, and how many of its modules a LoRA adapts."""


@pytest.mark.parametrize("task", PUBLISHED)
def test_every_task_maps_completely_and_back_at_published_size(task: Task) -> None:
    shapes = published.FILES[published.TASKS[task]]
    facts = published_facts(PUBLISHED[task])
    checkpoint = header_only(shapes)

    model = empty_transformer(facts)
    adapted = [name for name in Wan(task=task).linears() if selects(Wan(task=task).layout.adapters, name)]

    assert facts == DitFacts.of(checkpoint, describe(checkpoint))
    assert (len(shapes), len(adapted)) == COUNTS[task]
    _assert_bijection(shapes, model, DIT)


def selects(patterns: tuple[str, ...], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def test_the_text_encoder_maps_completely_and_back_at_published_size() -> None:
    checkpoint = header_only(published.umt5())

    model = empty_umt5(TextFacts.of(describe(checkpoint)))

    _assert_bijection(published.umt5(), model, UMT5)


def _assert_bijection(shapes: published.Shapes, model: nn.Module, keys: KeyMap) -> None:
    library = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert {keys.to_library(name)[0].name: shape for name, shape in shapes.items()} == library
    assert {keys.to_original(name)[0] for name in library} == set(shapes)
