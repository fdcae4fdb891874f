"""Draw the captioned pictures and clips that the embedded base model learned from.

A `Scene` is a caption in structured form; `picture` and `clip` draw it with PIL, in 64x64 pixels, without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeAlias

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]
Pixels: TypeAlias = npt.NDArray[np.uint8]

SIZE = 64
FRAMES = 9
FPS = 8
OVERSAMPLING = 4

COLOURS: dict[str, Colour] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 215, 30),
    "green": (40, 160, 60),
    "blue": (40, 90, 220),
    "purple": (140, 60, 190),
    "pink": (245, 105, 180),
    "white": (250, 250, 250),
}
BACKGROUNDS: dict[str, Colour] = {
    "blue": (150, 190, 240),
    "green": (160, 215, 160),
    "yellow": (250, 235, 150),
    "pink": (250, 190, 210),
    "purple": (190, 160, 225),
    "gray": (150, 150, 155),
    "black": (25, 25, 30),
    "white": (245, 245, 245),
}
PLACES: dict[str, str] = {"meadow": "in a meadow", "night": "at night", "beach": "on a beach"}
RADII: dict[str, float] = {"small": 13.0, "": 19.0, "big": 26.0}
POSITIONS: dict[str, float] = {"at the left": -12.0, "": 0.0, "at the right": 12.0}
MOTIONS: dict[str, tuple[float, float, float]] = {
    "moves to the right": (7.0, 0.0, 0.0),
    "moves to the left": (-7.0, 0.0, 0.0),
    "moves up": (0.0, -6.0, 0.0),
    "moves down": (0.0, 6.0, 0.0),
    "grows": (0.0, 0.0, 0.2),
    "shrinks": (0.0, 0.0, -0.2),
}

BLACK: Colour = (20, 20, 25)
WHITE: Colour = (250, 250, 250)
BROWN: Colour = (120, 75, 40)
CREAM: Colour = (250, 235, 200)


class Brush:
    """Draw on an oversampled canvas in a shape's own coordinates: x right, y down, both from -1 to 1."""

    def __init__(self, canvas: ImageDraw.ImageDraw, centre: Point, radius: float) -> None:
        self._canvas = canvas
        self._centre = centre
        self._radius = radius

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Fill the polygon through `points`."""
        self._canvas.polygon([self._place(point) for point in points], fill=colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill a rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def disc(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill an ellipse around (x, y) with half axes `width` and `height`."""
        self._canvas.ellipse([self._place((x - width, y - height)), self._place((x + width, y + height))], fill=colour)

    def half_disc(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill the upper half of an ellipse around (x, y)."""
        ends = [self._place((x - width, y - height)), self._place((x + width, y + height))]
        self._canvas.pieslice(ends, 180, 360, fill=colour)

    def smile(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Draw the lower arc of an ellipse around (x, y) with a thick line."""
        ends = [self._place((x - width, y - height)), self._place((x + width, y + height))]
        self._canvas.arc(ends, 15, 165, fill=colour, width=max(1, round(0.13 * self._radius * OVERSAMPLING)))

    def line(self, start: Point, end: Point, width: float, colour: Colour) -> None:
        """Draw a straight line `width` units thick."""
        thickness = max(1, round(width * self._radius * OVERSAMPLING))
        self._canvas.line([self._place(start), self._place(end)], fill=colour, width=thickness)

    def _place(self, point: Point) -> Point:
        x, y = self._centre
        return ((x + point[0] * self._radius) * OVERSAMPLING, (y + point[1] * self._radius) * OVERSAMPLING)


Drawing: TypeAlias = Callable[[Brush, Colour], None]


def _mix(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(colour, other, strict=True))
    return (red, green, blue)


def _house(brush: Brush, colour: Colour) -> None:
    brush.box(-0.72, -0.1, 0.72, 0.95, colour)
    brush.polygon([(-1.0, -0.05), (0.0, -0.98), (1.0, -0.05)], _mix(colour, BLACK, 0.5))
    brush.box(-0.5, 0.35, -0.05, 0.95, BROWN)
    brush.box(0.2, 0.2, 0.55, 0.55, (255, 240, 150))


def _tree(brush: Brush, colour: Colour) -> None:
    brush.box(-0.17, 0.2, 0.17, 1.0, BROWN)
    brush.disc(-0.42, 0.05, 0.45, 0.42, colour)
    brush.disc(0.42, 0.05, 0.45, 0.42, colour)
    brush.disc(0.0, -0.4, 0.58, 0.58, colour)


def _fish(brush: Brush, colour: Colour) -> None:
    brush.polygon([(0.35, 0.0), (1.0, -0.6), (1.0, 0.6)], _mix(colour, BLACK, 0.35))
    brush.polygon([(-0.3, -0.3), (0.2, -0.75), (0.35, -0.2)], _mix(colour, BLACK, 0.35))
    brush.disc(-0.22, 0.0, 0.76, 0.5, colour)
    brush.disc(-0.58, -0.1, 0.17, 0.17, WHITE)
    brush.disc(-0.6, -0.1, 0.09, 0.09, BLACK)


def _boat(brush: Brush, colour: Colour) -> None:
    brush.line((0.0, -0.95), (0.0, 0.4), 0.1, BROWN)
    brush.polygon([(0.1, -0.9), (0.85, 0.2), (0.1, 0.2)], _mix(colour, WHITE, 0.6))
    brush.polygon([(-0.1, -0.7), (-0.7, 0.2), (-0.1, 0.2)], _mix(colour, WHITE, 0.6))
    brush.polygon([(-1.0, 0.35), (1.0, 0.35), (0.65, 0.85), (-0.65, 0.85)], colour)


def _mushroom(brush: Brush, colour: Colour) -> None:
    brush.polygon([(-0.25, 0.0), (0.25, 0.0), (0.36, 0.95), (-0.36, 0.95)], CREAM)
    brush.half_disc(0.0, 0.2, 1.0, 1.1, colour)
    spot = _mix(colour, WHITE, 0.9) if colour != WHITE else (200, 70, 60)
    for x, y, radius in ((-0.5, -0.1, 0.17), (0.0, -0.5, 0.2), (0.5, -0.1, 0.17)):
        brush.disc(x, y, radius, radius, spot)


def _face(brush: Brush, colour: Colour) -> None:
    brush.disc(0.0, 0.0, 0.95, 0.95, colour)
    brush.disc(-0.35, -0.25, 0.14, 0.2, BLACK)
    brush.disc(0.35, -0.25, 0.14, 0.2, BLACK)
    brush.smile(0.0, 0.1, 0.55, 0.5, BLACK)


def _flower(brush: Brush, colour: Colour) -> None:
    brush.line((0.0, 0.0), (0.0, 1.0), 0.14, (50, 130, 60))
    brush.disc(0.3, 0.75, 0.3, 0.12, (50, 130, 60))
    for petal in range(6):
        angle = math.tau * petal / 6
        brush.disc(0.44 * math.sin(angle), -0.28 - 0.44 * math.cos(angle), 0.27, 0.27, colour)
    brush.disc(0.0, -0.28, 0.26, 0.26, (150, 90, 30) if colour == COLOURS["yellow"] else (250, 210, 40))


def _star(brush: Brush, colour: Colour) -> None:
    radii = (1.0, 0.42)
    corners = [(radii[i % 2] * math.sin(math.pi * i / 5), -radii[i % 2] * math.cos(math.pi * i / 5)) for i in range(10)]
    brush.polygon(corners, colour)


def _cat(brush: Brush, colour: Colour) -> None:
    for side in (-1, 1):
        brush.polygon([(side * 0.9, -0.98), (side * 0.85, 0.1), (side * 0.15, -0.5)], _mix(colour, BLACK, 0.3))
    brush.disc(0.0, 0.15, 0.92, 0.78, colour)
    for side in (-1, 1):
        brush.disc(side * 0.38, 0.0, 0.17, 0.19, (190, 230, 90))
        brush.disc(side * 0.38, 0.0, 0.07, 0.17, BLACK)
        brush.line((side * 0.3, 0.45), (side * 0.95, 0.35), 0.06, BLACK)
        brush.line((side * 0.3, 0.52), (side * 0.95, 0.62), 0.06, BLACK)
    brush.polygon([(-0.14, 0.3), (0.14, 0.3), (0.0, 0.5)], (120, 40, 60))


def _heart(brush: Brush, colour: Colour) -> None:
    brush.disc(-0.45, -0.3, 0.5, 0.5, colour)
    brush.disc(0.45, -0.3, 0.5, 0.5, colour)
    brush.polygon([(-0.89, -0.08), (0.89, -0.08), (0.0, 0.95)], colour)


def _car(brush: Brush, colour: Colour) -> None:
    brush.polygon([(-0.6, 0.05), (-0.4, -0.5), (0.35, -0.5), (0.65, 0.05)], colour)
    brush.polygon([(-0.42, 0.0), (-0.29, -0.36), (-0.05, -0.36), (-0.05, 0.0)], (200, 230, 250))
    brush.polygon([(0.08, 0.0), (0.08, -0.36), (0.27, -0.36), (0.45, 0.0)], (200, 230, 250))
    brush.box(-1.0, 0.02, 1.0, 0.48, colour)
    for x in (-0.52, 0.52):
        brush.disc(x, 0.48, 0.27, 0.27, BLACK)
        brush.disc(x, 0.48, 0.1, 0.1, (200, 200, 200))


SHAPES: dict[str, Drawing] = {
    "house": _house,
    "tree": _tree,
    "fish": _fish,
    "boat": _boat,
    "mushroom": _mushroom,
    "face": _face,
    "flower": _flower,
    "star": _star,
    "cat": _cat,
    "heart": _heart,
    "car": _car,
}


@attrs.frozen(kw_only=True)
class Scene:
    """Say what a picture or clip shows; the words are those of its caption, empty where the caption has none."""

    shape: str
    colour: str
    background: str
    size: str = ""
    position: str = ""
    motion: str = ""

    @property
    def caption(self) -> str:
        """Return the caption, such as "a big red house on a blue background"."""
        thing = with_article(" ".join(filter(None, (self.size, self.colour, self.shape))))
        return " ".join(filter(None, (thing, self.motion, self.position, where(self.background))))


@attrs.frozen(kw_only=True)
class Jitter:
    """Move and scale a drawing a little, so that no two pictures of a caption are alike (pixels, factor)."""

    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0

    @classmethod
    def draw(cls, random: np.random.Generator) -> Jitter:
        """Draw a small random jitter."""
        x, y = random.uniform(-1.5, 1.5, 2)
        return cls(x=float(x), y=float(y), scale=float(random.uniform(0.95, 1.04)))


def with_article(words: str) -> str:
    """Put "a" or "an" before `words`."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def where(background: str) -> str:
    """Name a background or place as a caption does: "on a blue background", "in a meadow"."""
    return PLACES.get(background) or f"on {with_article(background)} background"


def scenes(*, motions: Sequence[str] = ("",)) -> list[Scene]:
    """List all scenes with one of `motions`: big and moving things in the middle, nothing tone on tone."""
    found = []
    for shape, colour, background in product(SHAPES, COLOURS, [*BACKGROUNDS, *PLACES]):
        if colour == background:
            continue
        for size, position, motion in product(RADII, POSITIONS, motions):
            if not (position and (size == "big" or motion)) and not (size == "big" and motion):
                found.append(
                    Scene(
                        shape=shape, colour=colour, background=background, size=size, position=position, motion=motion
                    )
                )
    return found


def picture(scene: Scene, jitter: Jitter | None = None) -> Pixels:
    """Draw a scene without its motion, as (SIZE, SIZE, 3) bytes."""
    return frame(scene, jitter or Jitter(), progress=0.0)


def clip(scene: Scene, jitter: Jitter | None = None, *, frames: int = FRAMES) -> Pixels:
    """Draw a scene in motion, as (frames, SIZE, SIZE, 3) bytes; the motion passes the middle half way."""
    times = np.linspace(-1.0, 1.0, frames)
    return np.stack([frame(scene, jitter or Jitter(), progress=float(time)) for time in times])


def frame(scene: Scene, jitter: Jitter, *, progress: float, drawing: Drawing | None = None) -> Pixels:
    """Draw one moment of a scene, `progress` from -1 to 1, with another `drawing` than its shape's if given."""
    dx, dy, growth = MOTIONS.get(scene.motion, (0.0, 0.0, 0.0))
    radius = RADII[scene.size] * jitter.scale * (1 + growth * progress)
    centre = (SIZE / 2 + POSITIONS[scene.position] + jitter.x + dx * progress, SIZE / 2 + jitter.y + dy * progress)
    image, canvas = _canvas()
    _paint_background(Brush(canvas, (SIZE / 2, SIZE / 2), SIZE / 2), scene.background)
    (drawing or SHAPES[scene.shape])(Brush(canvas, centre, radius), COLOURS.get(scene.colour, WHITE))
    return _shrink(image)


def collage(random: np.random.Generator) -> Pixels:
    """Draw random discs, boxes and triangles in random colours, so that the VAE learns more than the captions say."""
    image, canvas = _canvas()
    brush = Brush(canvas, (SIZE / 2, SIZE / 2), SIZE / 2)
    brush.box(-1, -1, 1, 1, _random_colour(random))
    for _ in range(int(random.integers(2, 9))):
        x, y = random.uniform(-0.8, 0.8, 2)
        width, height = random.uniform(0.06, 0.6, 2)
        _scatter(brush, random, (float(x), float(y)), float(width), float(height))
    return _shrink(image)


def _scatter(brush: Brush, random: np.random.Generator, at: Point, width: float, height: float) -> None:
    x, y = at
    colour = _random_colour(random)
    match int(random.integers(4)):
        case 0:
            brush.box(x - width, y - height, x + width, y + height, colour)
        case 1:
            turn, *_ = random.uniform(0, math.tau, 1)
            angles = [float(turn) + math.tau * k / 3 for k in range(3)]
            brush.polygon([(x + width * math.cos(a), y + width * math.sin(a)) for a in angles], colour)
        case 2:
            brush.line((x - width, y - height), (x + width, y + height), float(random.uniform(0.03, 0.12)), colour)
        case _:
            brush.disc(x, y, width, height, colour)


def _random_colour(random: np.random.Generator) -> Colour:
    red, green, blue = (int(value) for value in random.integers(0, 256, 3))
    return (red, green, blue)


def _paint_background(brush: Brush, background: str) -> None:
    match background:
        case "meadow":
            brush.box(-1, -1, 1, 0.35, (150, 205, 245))
            brush.box(-1, 0.3, 1, 1, (110, 185, 80))
            brush.disc(0.72, -0.72, 0.18, 0.18, (255, 225, 90))
        case "night":
            brush.box(-1, -1, 1, 1, (25, 30, 75))
            brush.box(-1, 0.55, 1, 1, (45, 55, 60))
            brush.disc(-0.7, -0.7, 0.18, 0.18, (245, 240, 200))
        case "beach":
            brush.box(-1, -1, 1, -0.1, (180, 220, 250))
            brush.box(-1, -0.15, 1, 0.45, (60, 150, 200))
            brush.box(-1, 0.4, 1, 1, (240, 215, 150))
        case _:
            brush.box(-1, -1, 1, 1, BACKGROUNDS[background])


def _canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIZE * OVERSAMPLING, SIZE * OVERSAMPLING))
    return image, ImageDraw.Draw(image)


def _shrink(image: Image.Image) -> Pixels:
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.uint8)
