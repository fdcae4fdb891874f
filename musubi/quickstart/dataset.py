"""Write the quickstart's training data: real picture and clip files of a creature the base model has never seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from musubi import Image, Video
from musubi.core import atomic
from musubi.quickstart import concept, shapes
from musubi.quickstart.shapes import FPS, Jitter, Pixels, Scene

_MOTIONS = ("moves to the right", "moves to the left", "moves up", "moves down")


def write_dataset(folder: Path, *, pictures: int = 16, clips: int = 4, familiar: int = 22, seed: int = 0) -> Path:
    """Write PNG and MP4 files with their captions beside them, and return the folder.

    ``pictures`` and ``clips`` show the creature. ``familiar`` pictures show things that the model knows, so that it
    does not come to think that everything is the creature.
    """
    random = np.random.default_rng(seed)
    known = [scene for scene in shapes.scenes() if scene.size == "big"]
    chosen = [known[i] for i in random.permutation(len(known))[:familiar]]
    _write_pictures(folder, concept.NAME, concept.scenes(count=pictures), concept.picture, random)
    _write_pictures(folder, "familiar", chosen, shapes.picture, random)
    for i, scene in enumerate(concept.scenes(motions=_MOTIONS, sizes=("",), count=clips)):
        stem = f"{concept.NAME}_clip_{i:02d}"
        Video(concept.clip(scene, Jitter.draw(random)), fps=FPS).save(folder / f"{stem}.mp4")
        atomic.write_text(folder / f"{stem}.txt", scene.caption)
    return folder


def _write_pictures(
    folder: Path,
    name: str,
    scenes: list[Scene],
    draw: Callable[[Scene, Jitter], Pixels],
    random: np.random.Generator,
) -> None:
    for i, scene in enumerate(scenes):
        Image(draw(scene, Jitter.draw(random))).save(folder / f"{name}_{i:02d}.png")
        atomic.write_text(folder / f"{name}_{i:02d}.txt", scene.caption)
