"""The words around a prompt that Qwen-Image's language model is asked with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from musubi.architectures.qwen_image.tasks import Task

_DESCRIBE = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:"
)
_CHANGE = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how "
    "the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)
IMAGE_PAD = "<|image_pad|>"
"""The token in whose place the model sees a part of a picture."""

LIMIT = 1024
"""Tokens that are read of a prompt without pictures; with pictures there is no limit."""

_VISION_AREA: Mapping[Task, int] = MappingProxyType(
    {"edit": 1024 * 1024, "edit_2509": 384 * 384, "edit_2511": 384 * 384}
)
_TOKEN_AREA = 28 * 28


def lead(task: Task) -> str:
    """Return the text before a prompt and its pictures: its tokens' states are dropped."""
    system = _DESCRIBE if task == "text_to_image" else _CHANGE
    return f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n"


def worded(task: Task, prompt: str, *, pictures: Sequence[int] = ()) -> str:
    """Return the whole text for a prompt; ``pictures`` are the numbers of tokens that stand for each.

    Edit sees one picture, without a number; the later models number all of them.
    """
    shown = [f"<|vision_start|>{IMAGE_PAD * tokens}<|vision_end|>" for tokens in pictures]
    if task != "edit":
        shown = [f"Picture {number}: {picture}" for number, picture in enumerate(shown, start=1)]
    return f"{lead(task)}{''.join(shown)}{prompt}<|im_end|>\n<|im_start|>assistant\n"


def seen(task: Task, pictures: int) -> int:
    """Return how many of so many pictures the language model is shown."""
    return min(pictures, 1) if task == "edit" else pictures


def vision_area(task: Task) -> int:
    """Return about how many pixels a picture has as the language model is shown it."""
    return _VISION_AREA[task]


def longest_text(task: Task) -> int:
    """Return how many states the longest prompt has that is to be expected: one picture and ``LIMIT`` tokens."""
    return LIMIT + (0 if task == "text_to_image" else vision_area(task) // _TOKEN_AREA)
