from __future__ import annotations

from typing import get_args

import pytest

from musubi.architectures.qwen_image.tasks import Task
from musubi.architectures.qwen_image.templates import IMAGE_PAD, lead, seen, vision_area, worded


@pytest.mark.parametrize("task", get_args(Task))
def test_a_prompt_stands_between_its_lead_and_the_answer(task: Task) -> None:
    text = worded(task, "a fox")

    assert text.startswith(lead(task))
    assert text.endswith("a fox<|im_end|>\n<|im_start|>assistant\n")


def test_the_first_model_that_edits_numbers_no_picture_and_later_ones_all() -> None:
    assert "<|vision_start|><|image_pad|><|vision_end|>a fox" in worded("edit", "a fox", pictures=(1,))
    both = worded("edit_2509", "a fox", pictures=(1, 2))
    assert (
        "Picture 1: <|vision_start|><|image_pad|><|vision_end|>"
        "Picture 2: <|vision_start|><|image_pad|><|image_pad|><|vision_end|>a fox"
    ) in both
    assert both.count(IMAGE_PAD) == 3


@pytest.mark.parametrize(("task", "count"), [("edit", 1), ("edit_2509", 3), ("edit_2511", 3)])
def test_edit_s_language_model_sees_the_first_picture_only(task: Task, count: int) -> None:
    assert seen(task, 3) == count


def test_edit_sees_a_megapixel_and_later_ones_less() -> None:
    assert vision_area("edit") == 1024**2
    assert vision_area("edit_2509") == vision_area("edit_2511") == 384**2
