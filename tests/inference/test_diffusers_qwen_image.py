"""diffusers' own pipelines of Qwen-Image load our LoRAs and come to our latents: same noise, pictures and words.

The areas at which pictures are shown are made small in both, for a tiny VAE on a processor. Where the two differ by
design, pictures are of sizes that make no difference: both stretch pictures for the language model, but for the VAE
diffusers stretches them, and we crop what the grid of 32 pixels does not leave whole.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, get_args

import attrs
import numpy as np
import pytest
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image as Pillow
from torch import Tensor

from musubi import ClassifierFree, QwenImage, QwenImagePipeline, Request
from musubi.architectures.qwen_image import codec
from musubi.architectures.qwen_image.sizes import official
from musubi.architectures.qwen_image.tasks import Task
from musubi.embedding.patches import patched
from musubi.inference.engine import draw_noise
from musubi.testing.qwen_image import tiny_qwen_image
from tests.inference.conftest import lora_for
from tests.inference.qwen_pipelines import pipeline_of

PROMPT, NEGATIVE = "make the fox blue", "grey"
SIZE, STEPS, SEED, SCALE = (64, 96), 5, 7, 3.0
VAE_AREA = 96 * 96
COUNTS: dict[Task, int] = {"text_to_image": 0, "edit": 1, "edit_2509": 2, "edit_2511": 3}


@attrs.frozen(eq=False)
class Scene:
    """A task's tiny files in both layouts, and a LoRA."""

    task: Task
    model: QwenImage
    folder: Path
    lora: Path

    @property
    def request(self) -> Request:
        shown = pictures(COUNTS[self.task])
        return Request(PROMPT, negative=NEGATIVE, size=SIZE, steps=STEPS, seed=SEED, guidance=SCALE, control=shown)

    def ours(self, **changes: Any) -> Tensor:
        pipeline = QwenImagePipeline(model=self.model, device="cpu", dtype="float32").with_lora(self.lora)
        return pipeline.draw_latents(self.request.replace(**changes)).tensor

    def theirs(self) -> Tensor:
        pipeline: Any = pipeline_of(self.task, self.folder)
        pipeline.load_lora_weights(self.lora, adapter_name="fox")
        shown = pictures(COUNTS[self.task])
        image = {} if not shown else {"image": shown[0] if self.task == "edit" else shown}
        noise = draw_noise(self.model.geometry.latent_shape(SIZE), [SEED])
        output = pipeline(
            **image,
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            true_cfg_scale=SCALE,
            width=SIZE[0],
            height=SIZE[1],
            num_inference_steps=STEPS,
            latents=patched(noise, (1, 2, 2)),
            output_type="latent",
        )
        tokens: Tensor = output.images
        return tokens


def pictures(count: int) -> list[Pillow.Image]:
    """Return pictures in the very sizes at which they are shown."""
    random, found = np.random.default_rng(3), []
    for shape in [(2, 3), (1, 1), (3, 2)][:count]:
        width, height = official(shape, VAE_AREA)
        found.append(Pillow.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)))
    return found


@pytest.fixture(autouse=True)
def small_areas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "_AREA", VAE_AREA)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", VAE_AREA)
    theirs: Any = pipeline_qwenimage_edit.calculate_dimensions

    def smaller(_: int, ratio: float) -> Any:
        """Edit shows the VAE what it shows the language model; at a megapixel both are slow."""
        return theirs(VAE_AREA, ratio)

    monkeypatch.setattr(pipeline_qwenimage_edit, "calculate_dimensions", smaller)
    monkeypatch.setattr("musubi.architectures.qwen_image.vl.vision_area", areas)


def areas(task: Task) -> int:
    return VAE_AREA if task == "edit" else 384 * 384


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what sets a scene, once each."""

    @cache
    def scene_of(task: Task) -> Scene:
        folder = tmp_path_factory.mktemp("scene")
        model = tiny_qwen_image(folder / "files", task=task)
        tiny_qwen_image(folder / "theirs", task=task, layout="diffusers")
        return Scene(task, model, folder / "theirs", lora_for(model).save(folder / "fox.safetensors"))

    return scene_of


@pytest.mark.parametrize("task", get_args(Task))
def test_diffusers_comes_to_our_latents_with_our_lora(task: Task, scene: Any) -> None:
    at = scene(task)

    ours = patched(at.ours()[None], (1, 2, 2))

    assert (ours - at.theirs()).abs().max() <= 1e-4


@pytest.mark.parametrize("task", get_args(Task))
def test_guidance_that_makes_predictions_longer_comes_elsewhere(task: Task, scene: Any) -> None:
    at = scene(task)

    plain = at.ours(guidance=ClassifierFree(scale=SCALE))

    assert (plain - at.ours()).abs().max() > 1e-3


@pytest.mark.parametrize("task", [task for task in get_args(Task) if COUNTS[task]])
def test_every_picture_matters(task: Task, scene: Any) -> None:
    at, shown = scene(task), pictures(COUNTS[task])
    usual = at.ours()

    for number in range(len(shown)):
        other = [Pillow.eval(one, lambda x: 255 - x) if n == number else one for n, one in enumerate(shown)]
        assert (at.ours(control=other) - usual).abs().max() > 1e-3, number
