"""Draw "zuzu", a creature that the embedded base model has never seen: the quickstart teaches it with a LoRA."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from musubi.quickstart.shapes import (
    BACKGROUNDS,
    BLACK,
    COLOURS,
    WHITE,
    Brush,
    Colour,
    Jitter,
    Pixels,
    Scene,
    frame,
)

NAME = "zuzu"


def scenes(*, motions: Sequence[str] = ("",), sizes: Sequence[str] = ("big", ""), count: int = 16) -> list[Scene]:
    """List `count` scenes of the creature, cycling through the backgrounds, then sizes and motions."""
    backgrounds = list(BACKGROUNDS)
    return [
        Scene(
            shape=NAME,
            colour="",
            background=backgrounds[index % len(backgrounds)],
            size=sizes[index // len(backgrounds) % len(sizes)],
            motion=motions[index % len(motions)],
        )
        for index in range(count)
    ]


def picture(scene: Scene, jitter: Jitter | None = None) -> Pixels:
    """Draw the creature where the scene puts it, as (SIZE, SIZE, 3) bytes."""
    return frame(scene, jitter or Jitter(), progress=0.0, drawing=zuzu)


def clip(scene: Scene, jitter: Jitter | None = None, *, frames: int = 9) -> Pixels:
    """Draw the creature in motion, as (frames, SIZE, SIZE, 3) bytes."""
    times = np.linspace(-1.0, 1.0, frames)
    return np.stack([frame(scene, jitter or Jitter(), progress=float(time), drawing=zuzu) for time in times])


def zuzu(brush: Brush, _colour: Colour) -> None:
    """Draw a round pink creature with two big eyes, green antennae and green feet, whatever the colour."""
    for side in (-1, 1):
        brush.line((side * 0.3, -0.45), (side * 0.62, -0.85), 0.16, COLOURS["green"])
        brush.disc(side * 0.66, -0.82, 0.2, 0.2, COLOURS["green"])
        brush.disc(side * 0.42, 0.86, 0.36, 0.18, COLOURS["green"])
    brush.disc(0.0, 0.1, 0.9, 0.8, COLOURS["pink"])
    for side in (-1, 1):
        brush.disc(side * 0.36, -0.12, 0.27, 0.27, WHITE)
        brush.disc(side * 0.34, -0.1, 0.14, 0.15, BLACK)
