"""Draw random pictures and clips, as the VAE sees them: float tensors from -1 to 1."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from musubi.quickstart import shapes
from musubi.quickstart.shapes import Jitter, Pixels, Scene

COLLAGE_SHARE = 0.12
RECOLOURED_SHARE = 0.08
SIZE_WEIGHTS = {"small": 0.2, "": 0.35, "big": 0.45}


def random_scene(random: np.random.Generator, *, moving: bool) -> Scene:
    """Draw a scene: every shape, colour and place alike, big ones more often than small ones."""
    known = _scenes(moving)
    sizes = ("", "small") if moving else tuple(shapes.RADII)
    weights = np.array([SIZE_WEIGHTS[size] for size in sizes])
    size = sizes[int(random.choice(len(sizes), p=weights / weights.sum()))]
    return known[size][int(random.integers(len(known[size])))]


def random_pictures(random: np.random.Generator, count: int) -> Tensor:
    """Draw scenes and collages, as (count, 3, 1, SIZE, SIZE)."""
    drawn = [
        shapes.collage(random)
        if random.random() < COLLAGE_SHARE
        else _recoloured(random, shapes.picture(random_scene(random, moving=False), Jitter.draw(random)))
        for _ in range(count)
    ]
    return to_tensor(np.stack(drawn)[:, None])


def random_clips(random: np.random.Generator, count: int) -> Tensor:
    """Draw moving scenes and a few collages that stand still, as (count, 3, FRAMES, SIZE, SIZE)."""
    drawn = [
        np.repeat(shapes.collage(random)[None], shapes.FRAMES, axis=0)
        if random.random() < COLLAGE_SHARE / 2
        else _recoloured(random, shapes.clip(random_scene(random, moving=True), Jitter.draw(random)))
        for _ in range(count)
    ]
    return to_tensor(np.stack(drawn))


def to_tensor(pixels_BFHWC: Pixels) -> Tensor:
    """Turn bytes into floats from -1 to 1, as (batch, 3, frames, height, width)."""
    return torch.from_numpy(pixels_BFHWC.copy()).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def to_pixels(video_BCFHW: Tensor) -> Pixels:
    """Turn floats from -1 to 1 into bytes, as (batch, frames, height, width, 3)."""
    pixels: Pixels = ((video_BCFHW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 4, 1).cpu().numpy()
    return pixels


def _recoloured(random: np.random.Generator, pixels: Pixels) -> Pixels:
    """Swap and invert the channels of some drawings, so that the VAE keeps colours that no caption has."""
    if random.random() >= RECOLOURED_SHARE:
        return pixels
    inverted = random.random(3) < 0.5
    return np.where(inverted, 255 - pixels, pixels)[..., random.permutation(3)]


@cache
def _scenes(moving: bool) -> dict[str, list[Scene]]:
    known = shapes.scenes(motions=list(shapes.MOTIONS)) if moving else shapes.scenes()
    return {size: [scene for scene in known if scene.size == size] for size in shapes.RADII}
