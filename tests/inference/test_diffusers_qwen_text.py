"""Our text stage gives what diffusers' own pipelines give: the same tokens, the same states, with and without pictures.

What is not compared is the pixels' way into patches, for which transformers needs torchvision: golden cases hold that
(tests/parity/test_models_qwen_prompt.py).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image as Pillow
from torch import Tensor

from musubi.architectures.qwen_image.codec import QwenImageCodec
from musubi.architectures.qwen_image.sizes import official
from musubi.architectures.qwen_image.tasks import Task
from musubi.architectures.qwen_image.templates import LIMIT, vision_area
from musubi.architectures.qwen_image.vl import VisionLanguage, lead_length, tokens_of
from musubi.batch import Sample
from musubi.testing.qwen_image import tiny_qwen_image
from tests.inference.qwen_pipelines import pictures, pipeline_of
from tests.inference.twenty_prompts import PROMPTS

CPU = torch.device("cpu")
CASES: list[tuple[Task, int]] = [
    ("text_to_image", 0),
    ("edit", 1),
    ("edit_2509", 0),
    ("edit_2509", 1),
    ("edit_2509", 2),
    ("edit_2509", 3),
    ("edit_2511", 2),
]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what makes our text stage and diffusers' pipeline of a task, once each."""

    @cache
    def made(task: Task) -> tuple[QwenImageCodec, VisionLanguage, Any]:
        folder = tmp_path_factory.mktemp("qwen")
        model = tiny_qwen_image(folder, task=task, layout="diffusers")
        codec = model.codec()
        text = codec.load("text_encoder", device=CPU, dtype=torch.float32)
        return codec, cast(VisionLanguage, text), pipeline_of(task, folder)

    return made


def ours(codec: QwenImageCodec, text: VisionLanguage, prompt: str, shown: list[Pillow.Image]) -> Tensor:
    stage = next(stage for stage in codec.spec.stages if stage.name == "text")
    controls = {"control": tuple(torch.tensor(np.asarray(one))[None] for one in shown)} if shown else {}
    (entry,) = codec.encode(stage, {"text_encoder": text}, [Sample(name="a", caption=prompt, controls=controls)])
    return entry.tensors["varlen_vl_embed"]


def resized(pipeline: Any, task: Task, shown: list[Pillow.Image]) -> Any:
    """Return pictures as diffusers' pipeline shows them to the language model."""
    found = []
    for picture in shown:
        width, height = official(picture.size, vision_area(task))
        found.append(pipeline.image_processor.resize(picture, height, width))
    return None if not found else found[0] if task == "edit" else found


@pytest.mark.parametrize(("task", "count"), CASES)
@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_tokens_and_states_are_those_of_diffusers(task: Task, count: int, number: int, at: Any) -> None:
    (codec, text, pipeline), prompt, shown = at(task), PROMPTS[number], pictures(count)
    image = {} if task == "text_to_image" else {"image": resized(pipeline, task, shown)}

    theirs, mask = pipeline._get_qwen_prompt_embeds(prompt, **image, device=CPU)

    states, ids = ours(codec, text, prompt, shown), pipeline.text_encoder.seen[-1]
    assert mask.all()
    assert states.shape == theirs[0].shape
    assert (states - theirs[0]).abs().max() <= 1e-5
    counts = [int(n) for n in _runs(ids[0], text.encoder.config.image_token_id)]
    assert torch.equal(tokens_of(text.tokenizer, task, [prompt], counts)[0], ids)
    assert len(states) == ids.shape[1] - lead_length(text.tokenizer, task)


def _runs(ids: Tensor, token: int) -> list[int]:
    """Return how often a token stands in each of its runs."""
    lengths, before = [], False
    for here in (ids == token).tolist():
        if here and not before:
            lengths.append(0)
        if here:
            lengths[-1] += 1
        before = here
    return lengths


def test_words_alone_are_cut_where_diffusers_cuts_them(at: Any) -> None:
    codec, text, _ = at("text_to_image")

    longest = max(len(ours(codec, text, prompt, [])) for prompt in PROMPTS)

    assert longest == LIMIT, "one of the prompts is longer than what is read"


def test_prompts_together_give_what_each_gives(at: Any) -> None:
    codec, text, _ = at("text_to_image")
    stage = next(stage for stage in codec.spec.stages if stage.name == "text")
    samples = [Sample(name=str(n), caption=prompt) for n, prompt in enumerate(PROMPTS)]

    together = codec.encode(stage, {"text_encoder": text}, samples)

    for entry, prompt in zip(together, PROMPTS, strict=True):
        assert (entry.tensors["varlen_vl_embed"] - ours(codec, text, prompt, [])).abs().max() <= 1e-5


def test_diffusers_itself_leaves_the_model_in_the_dark_about_pictures(tmp_path: Path, at: Any) -> None:
    codec, text, told = at("edit_2509")
    tiny_qwen_image(tmp_path, task="edit_2509", layout="diffusers")
    shown = resized(told, "edit_2509", pictures(2))

    untold, _ = pipeline_of("edit_2509", tmp_path, told=False)._get_qwen_prompt_embeds("a fox", shown, device=CPU)

    states = ours(codec, text, "a fox", pictures(2))
    assert (untold[0] - states).norm() > 0.05 * states.norm(), "diffusers has mended it: take Told out of the tests"


@pytest.mark.parametrize("size", [(832, 480), (480, 832), (1000, 750), (333, 777), (640, 360), (4000, 3000), (64, 64)])
def test_sizes_are_those_of_diffusers(size: tuple[int, int]) -> None:
    ratio = size[0] / size[1]

    for area in (1024 * 1024, 384 * 384):
        assert official(size, area) == pipeline_qwenimage_edit_plus.calculate_dimensions(area, ratio)
        assert official(size, area) == pipeline_qwenimage_edit.calculate_dimensions(area, ratio)[:2]
