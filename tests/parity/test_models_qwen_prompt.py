"""Pictures as the language model is shown them, and the words around prompts.

The official tokenizer is not on this machine: of its recorded ids those are compared that do not depend on words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from musubi.architectures.qwen_image.pixels import Patches, Patching, patches_of
from musubi.architectures.qwen_image.tasks import Task
from musubi.architectures.qwen_image.templates import IMAGE_PAD, worded
from tests.parity.cases import golden, golden_stems

STEMS = golden_stems("models_qwen_prompt")
each_case = pytest.mark.parametrize("stem", STEMS)
IMAGE_ID = 151655
"""The official tokenizer's token for a part of a picture."""


def shown(tensors: dict[str, Tensor]) -> list[Patches]:
    names = sorted(name for name in tensors if name.startswith("in.image_"))
    return [patches_of(tensors[name], Patching()) for name in names]


@each_case
@pytest.mark.parametrize("kind", ["edit", "edit_plus"])
def test_models_qwen_prompt_pixels(stem: str, kind: str) -> None:
    tensors = golden(stem)[1]
    patches = shown(tensors)

    assert [[1, one.rows, one.columns] for one in patches] == tensors[f"out.{kind}.image_grid_thw"].tolist()
    if f"out.{kind}.pixel_values" in tensors:
        found = torch.cat([one.values for one in patches])
        assert (found - tensors[f"out.{kind}.pixel_values"]).abs().max() <= 1e-6


@each_case
@pytest.mark.parametrize(("task", "template"), [("text_to_image", "t2i"), ("edit", "edit"), ("edit_2509", "edit_plus")])
def test_models_qwen_prompt_words(stem: str, task: Task, template: str) -> None:
    meta: dict[str, Any] = golden(stem)[0]["config"]
    for prompt in meta["prompts"]:
        for count in {"t2i": [0], "edit": [1], "edit_plus": [1, 2, 3]}[template]:
            expected = meta[f"template_{template}"].format(pictured(meta, template, count) + prompt)

            assert worded(task, prompt, pictures=[1] * count) == expected


def pictured(meta: dict[str, Any], template: str, count: int) -> str:
    """Return what stands for pictures before a prompt; Edit's template has its one picture itself."""
    if template != "edit_plus":
        return ""
    return "".join(meta["picture_prefix"].format(n=number) for number in range(1, count + 1))


@each_case
def test_models_qwen_prompt_tokens_of_pictures(stem: str) -> None:
    meta, tensors = golden(stem)
    counts = [one.tokens(Patching().merge) for one in shown(tensors)]

    assert counted(tensors["out.edit.input_ids"]) == counts
    assert counted(tensors["out.edit_plus.input_ids"]) == [sum(counts)]
    assert worded("edit", meta["config"]["prompts"][0], pictures=counts[:1]).count(IMAGE_PAD) == counts[0]


def counted(ids: Tensor) -> Sequence[int]:
    found: list[int] = (ids == IMAGE_ID).sum(1).tolist()
    return found
