"""Draw sheets of samples to look at, and count the samples in which the caption's shape is found."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from PIL import Image

from musubi.quickstart import shapes
from musubi.quickstart.build_base.dit import Denoiser, load_denoiser, sample
from musubi.quickstart.build_base.group import Group
from musubi.quickstart.build_base.latents import denormalised, load_latents
from musubi.quickstart.build_base.loop import averaged_weights
from musubi.quickstart.build_base.options import Options
from musubi.quickstart.build_base.pictures import to_pixels
from musubi.quickstart.build_base.vae import decode, newest_vae
from musubi.quickstart.classifier import ShapeClassifier, named
from musubi.quickstart.shapes import Pixels, Scene

logger = logging.getLogger(__name__)

COLUMNS = 11
GAP = 2


def preview(options: Options, group: Group) -> None:
    """Write `preview.png` and `preview_clips.png`, and log how many of the pictures show the right shape."""
    if not group.leads:
        return
    vae = newest_vae(options.out)
    latents = load_latents(options.out)
    denoiser = load_denoiser(options.out / "dit.pt")
    scenes = example_scenes(np.random.default_rng(options.seed))
    pictures = _drawn(denoiser, vae, (latents.mean, latents.std), [scene.caption for scene in scenes], frames=1)[:, 0]
    write_sheet(pictures, options.out / "preview.png", columns=COLUMNS)
    captions = [f"a {colour} {shape} {motion} on a gray background" for colour, shape, motion in _moving()]
    clips = _drawn(denoiser, vae, (latents.mean, latents.std), captions, frames=3)
    write_sheet(clips.reshape(-1, *clips.shape[2:]), options.out / "preview_clips.png", columns=shapes.FRAMES)
    if (options.out / "classifier.pt").exists():
        _log_scores(options.out / "classifier.pt", pictures, [scene.shape for scene in scenes])


def example_scenes(random: np.random.Generator) -> list[Scene]:
    """Draw one big, two middle-sized and one small scene of every shape, row by row."""
    known = shapes.scenes()
    scenes = []
    for size in ("big", "", "", "small"):
        for shape in shapes.SHAPES:
            fitting = [scene for scene in known if scene.shape == shape and scene.size == size]
            scenes.append(fitting[int(random.integers(len(fitting)))])
    return scenes


def write_sheet(pixels_BHWC: Pixels, path: Path, *, columns: int, scale: int = 2) -> None:
    """Write pictures as one PNG, row by row."""
    height, width = pixels_BHWC.shape[1] + GAP, pixels_BHWC.shape[2] + GAP
    rows = -(-len(pixels_BHWC) // columns)
    sheet = np.full((rows * height, columns * width, 3), 128, np.uint8)
    for index, picture in enumerate(pixels_BHWC):
        row, column = divmod(index, columns)
        sheet[row * height :, column * width :][: height - GAP, : width - GAP] = picture
    image = Image.fromarray(sheet)
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(path)


@torch.no_grad()
def _drawn(
    denoiser: Denoiser,
    vae: AutoencoderKLWan,
    statistics: tuple[torch.Tensor, torch.Tensor],
    captions: Sequence[str],
    *,
    frames: int,
) -> Pixels:
    return to_pixels(decode(vae, denormalised(sample(denoiser, captions, frames=frames), *statistics)))


def _moving() -> list[tuple[str, str, str]]:
    motions = list(shapes.MOTIONS)
    return list(
        zip(
            ("red", "yellow", "blue", "pink", "green", "white"),
            ("boat", "fish", "car", "heart", "tree", "star"),
            motions,
            strict=True,
        )
    )


def _log_scores(path: Path, pictures: Pixels, expected: Sequence[str]) -> None:
    classifier = ShapeClassifier().eval()
    classifier.load_state_dict(averaged_weights(path))
    found = named(classifier, pictures)
    for shape in shapes.SHAPES:
        names = [name for name, wanted in zip(found, expected, strict=True) if wanted == shape]
        logger.info("%s: seen as %s", shape, ", ".join(names))
    right = sum(name == wanted for name, wanted in zip(found, expected, strict=True))
    logger.info("%d of %d pictures show the caption's shape", right, len(expected))
