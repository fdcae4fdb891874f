"""What a case of the corpus is: files that are put into a folder, and what a person expects of a dataset of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from musubi.architecture import Geometry, Size
from musubi.data.dataset import Dataset
from musubi.data.rates import FrameRate, Resample
from musubi.data.sources.folder import Folder
from musubi.data.sources.source import Source
from musubi.data.windows import Head, Windows
from musubi.testing.toy import Toy

GEOMETRY: Geometry = Toy().geometry
FRAMES = 5
"""How long the clips of the corpus are, unless a case says otherwise; its rate is the toy's, 8 frames a second."""

Colour = tuple[int, int, int]
Corners = tuple[Colour, Colour, Colour, Colour]
"""RGB in the middle of the quarters: top left, top right, bottom left, bottom right."""

CORNERS: Corners = ((200, 40, 40), (40, 180, 60), (40, 60, 200), (230, 230, 220))


@attrs.frozen
class Kept:
    """An item that must be there; ``path`` is relative to the case's folder.

    Args:
        size: The file's own (width, height).
        frames: The file's own frames that are trained.
        captions: None is what ``said`` gives for the file's name.
        controls: The conditioning files in their order.
        mask: The mask's path.
        weight: What the loss is multiplied by.
        corners: The colours of the first frame's quarters.
        numbers: What is painted on the frames, see ``paint.numbered``; None is not looked at.
        tolerance: How far colours may be off.
    """

    path: str
    size: Size = attrs.field(default=(64, 64), kw_only=True)
    frames: tuple[int, ...] = attrs.field(default=(0,), kw_only=True)
    captions: tuple[str, ...] | None = attrs.field(default=None, kw_only=True)
    controls: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    mask: str | None = attrs.field(default=None, kw_only=True)
    weight: float = attrs.field(default=1.0, kw_only=True)
    corners: Corners | None = attrs.field(default=None, kw_only=True)
    numbers: tuple[int, ...] | None = attrs.field(default=None, kw_only=True)
    tolerance: int = attrs.field(default=2, kw_only=True)

    @property
    def said(self) -> tuple[str, ...]:
        """The captions that the item must have."""
        return (said(self.path),) if self.captions is None else self.captions


@attrs.frozen
class Fault:
    """What decoding says of an item that its header does not: part of the message, and the file if it is another."""

    message: str
    place: str | None = None


def said(path: str) -> str:
    """Return the caption that the corpus gives to a file."""
    return f"this is {path}"


def clip(path: str, **facts: Any) -> Kept:
    """Return the expectation of a whole clip of the usual length, whose frames are numbered."""
    numbers = tuple(range(FRAMES))
    return attrs.evolve(Kept(path, frames=numbers, numbers=numbers, tolerance=4), **facts)


NEIGHBOURS = (Kept("fine.png"), clip("steady.mp4"))
"""What lies beside every bad input, and must never suffer from it."""


def dataset(
    *sources: Source,
    frames: Sequence[int] = (FRAMES,),
    windows: Windows | None = None,
    rate: FrameRate | None = None,
    keep_short: bool = False,
    no_upscale: bool = False,
    resolution: Size = (64, 64),
) -> Dataset:
    """Return a dataset of pictures, and of clips of the usual length."""
    return Dataset(
        sources=sources,
        resolution=resolution,
        frames=tuple(frames),
        windows=windows or Head(),
        rate=rate or Resample(),
        keep_short=keep_short,
        no_upscale=no_upscale,
        geometry=GEOMETRY,
    )


def folder(root: Path) -> Dataset:
    """Return the case's folder as a dataset, which most cases are."""
    return dataset(Folder(root))


@attrs.frozen(kw_only=True)
class Case:
    """One bad or odd input. Every place is relative to the case's folder, as issues show it.

    Args:
        name: A sentence.
        write: Puts the input into the folder, in which the good neighbours are already.
        read: The dataset.
        kept: The items beside the neighbours.
        neighbours: The good items, with what belongs to them in this case.
        reported: What a scan leaves out, with a part of each message.
        unmasked: The items among ``kept`` that a thorough scan finds damaged.
        broken: Those that nothing but decoding them to their end shows to be damaged.
        noted: What a scan says of items that are kept, or of files that are none.
        refused: Part of the error of a source that cannot be read at all; then nothing is kept.
        needs: Why the case cannot be made on this machine; None if it can.
    """

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], Dataset] = folder
    kept: Sequence[Kept] = ()
    neighbours: Sequence[Kept] = NEIGHBOURS
    reported: Mapping[str, str] = attrs.field(factory=dict)
    unmasked: Mapping[str, Fault] = attrs.field(factory=dict)
    broken: Mapping[str, Fault] = attrs.field(factory=dict)
    noted: Mapping[str, str] = attrs.field(factory=dict)
    refused: str = ""
    needs: Callable[[], str | None] = lambda: None

    @property
    def expected(self) -> list[Kept]:
        """All items that a scan must find."""
        return [] if self.refused else [*self.neighbours, *self.kept]

    @property
    def faults(self) -> dict[str, Fault]:
        """The items that cannot be decoded."""
        return {**self.unmasked, **self.broken}


def nothing(root: Path) -> None:
    """Write nothing beside the neighbours."""


def each(make: Callable[[Path], object], names: Iterable[str]) -> Callable[[Path], None]:
    """Return what writes one file under each of several names."""

    def write(root: Path) -> None:
        for name in names:
            make(root / name)

    return write
