"""Write the quickstart's training data: real picture and clip files of a creature the base model has never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from musubi import Image, Video
from musubi.core import atomic
from musubi.quickstart import concept
from musubi.quickstart.shapes import FPS, Jitter


def write_dataset(folder: Path, *, pictures: int = 16, clips: int = 4, seed: int = 0) -> Path:
    """Write ``pictures`` PNG and ``clips`` MP4 files with their captions beside them, and return the folder."""
    random = np.random.default_rng(seed)
    for i, scene in enumerate(concept.scenes(count=pictures)):
        pixels = concept.picture(scene, Jitter.draw(random))
        Image(pixels).save(folder / f"{concept.NAME}_{i:02d}.png")
        atomic.write_text(folder / f"{concept.NAME}_{i:02d}.txt", scene.caption)
    moving = ("moves to the right", "moves to the left", "moves up", "moves down")
    for i, scene in enumerate(concept.scenes(motions=moving, sizes=("",), count=clips)):
        Video(concept.clip(scene, Jitter.draw(random)), fps=FPS).save(folder / f"{concept.NAME}_clip_{i:02d}.mp4")
        atomic.write_text(folder / f"{concept.NAME}_clip_{i:02d}.txt", scene.caption)
    return folder
