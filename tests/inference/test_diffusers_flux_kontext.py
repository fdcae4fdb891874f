"""diffusers' own pipeline of FLUX.1 Kontext loads our LoRA and comes to our latents: same noise, picture and words.

Where the two differ by design, the pictures are of sizes that make no difference: diffusers stretches a picture to one
of the preferred sizes, and we crop what does not fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image as Pillow
from torch import Tensor

from musubi import Embedded, FluxKontext, FluxKontextPipeline, OwnSize, Request
from musubi.architectures.flux_kontext.sizes import PREFERRED
from musubi.embedding.patches import patched
from musubi.inference.engine import draw_noise
from musubi.testing.flux_kontext import tiny_flux_kontext
from tests.inference.conftest import lora_for
from tests.inference.flux_pipelines import pipeline_of

PROMPT, NEGATIVE = "make the fox blue", "grey"
SIZE, STEPS, SEED, SCALE = (64, 96), 5, 7, 2.5
OWN = (80, 48)


@attrs.frozen(eq=False)
class Scene:
    """Tiny files in both layouts, and a LoRA."""

    model: FluxKontext
    folder: Path
    lora: Path

    def ours(self, **asked: Any) -> Tensor:
        request = Request(PROMPT, size=SIZE, steps=STEPS, seed=SEED, guidance=SCALE).replace(**asked)
        pipeline = FluxKontextPipeline(model=self.model, device="cpu", dtype="float32").with_lora(self.lora)
        return patched(pipeline.draw_latents(request).tensor[None], (1, 2, 2))

    def theirs(self, **asked: Any) -> Tensor:
        pipeline: Any = pipeline_of(self.folder)
        pipeline.load_lora_weights(self.lora, adapter_name="fox")
        output = pipeline(
            prompt=PROMPT,
            guidance_scale=SCALE,
            width=SIZE[0],
            height=SIZE[1],
            max_area=SIZE[0] * SIZE[1],
            num_inference_steps=STEPS,
            latents=patched(draw_noise(self.model.geometry.latent_shape(SIZE), [SEED]), (1, 2, 2)),
            output_type="latent",
            **asked,
        )
        tokens: Tensor = output.images
        return tokens


def picture(size: tuple[int, int], *, seed: int = 3) -> Pillow.Image:
    random = np.random.default_rng(seed)
    return Pillow.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    model = tiny_flux_kontext(folder / "files")
    tiny_flux_kontext(folder / "theirs", layout="diffusers")
    # In diffusers' names: its converter of original names knows the published widths alone.
    lora = lora_for(model).bind(model).save(folder / "fox.safetensors", layout="diffusers")
    return Scene(model, folder / "theirs", lora)


def test_words_alone(scene: Scene) -> None:
    assert (scene.ours() - scene.theirs()).abs().max() <= 1e-4


def test_a_picture_of_a_preferred_size(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ((64, 128), (96, 96), (128, 64))
    monkeypatch.setattr("musubi.architectures.flux_kontext.sizes.PREFERRED", small)
    monkeypatch.setattr("diffusers.pipelines.flux.pipeline_flux_kontext.PREFERRED_KONTEXT_RESOLUTIONS", small)
    shown = picture((128, 64))

    ours = scene.ours(control=[shown])

    assert (ours - scene.theirs(image=shown)).abs().max() <= 1e-4


def test_a_picture_in_its_own_size(scene: Scene) -> None:
    shown = picture(OWN)

    ours = scene.ours(control=[shown], control_size=OwnSize())

    assert (ours - scene.theirs(image=shown, _auto_resize=False)).abs().max() <= 1e-4
    assert (ours - scene.ours()).abs().max() > 1e-3
    other = scene.ours(control=[picture(OWN, seed=4)], control_size=OwnSize())
    assert (ours - other).abs().max() > 1e-3


def test_a_second_pass_for_a_negative_prompt(scene: Scene) -> None:
    ours = scene.ours(guidance=Embedded(scale=SCALE, classifier_free=3.0), negative=NEGATIVE)

    assert (ours - scene.theirs(negative_prompt=NEGATIVE, true_cfg_scale=3.0)).abs().max() <= 1e-4
    assert (ours - scene.ours()).abs().max() > 1e-3


def test_the_preferred_sizes_are_those_of_diffusers() -> None:
    from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

    assert sorted(PREFERRED) == sorted(PREFERRED_KONTEXT_RESOLUTIONS)
