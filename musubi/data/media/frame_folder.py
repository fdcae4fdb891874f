"""A folder of pictures as a clip: one frame each, in the order of the numbers in their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from musubi.architecture import Size
from musubi.core.errors import DataError, Issue, shown
from musubi.data.media.images import probe_image, read_image
from musubi.data.media.readable import readable
from musubi.data.media.resize import Pixels
from musubi.data.sample import IMAGES, Probe

_NUMBER = re.compile(r"([0-9]+)")


def frame_files(folder: Path) -> tuple[Path, ...]:
    """Return the pictures of a folder, ``frame_2`` before ``frame_10``; hidden files and other kinds are passed over.

    Raises:
        DataError: The folder cannot be read.
    """
    with readable(folder):
        found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGES and not path.name.startswith(".")]
    return tuple(sorted(found, key=natural_order))


def probe_folder(folder: Path) -> Probe:
    """Return size and number of the frames; the rate is not known. The first frame is decoded.

    Raises:
        DataError: There is no frame, one cannot be read, or one has another size.
    """
    files = frame_files(folder)
    if not files:
        hint = "put the frames into it as PNG or JPEG, or remove it"
        raise DataError("cannot read", [Issue(shown(folder), "holds no picture", hint)])
    height, width = read_image(files[0]).shape[:2]
    first = (width, height)
    issues = [_odd(file, size, first) for file in files if (size := probe_image(file).size) != first]
    if issues:
        raise DataError("cannot read", issues)
    return Probe(kind="video", size=first, frames=len(files))


def read_folder(folder: Path, frames: Sequence[int]) -> Iterator[Pixels]:
    """Yield the wanted frames, given by ascending numbers that may repeat, as RGB of shape (height, width, 3).

    Raises:
        DataError: A frame is not there, cannot be read, or has another size than the first.
    """
    files = frame_files(folder)
    read: int | None = None
    pixels: Pixels | None = None
    size: Size | None = None
    for number in frames:
        if pixels is None or number != read:
            file = _file(folder, files, number)
            pixels, read = read_image(file), number
            own = (pixels.shape[1], pixels.shape[0])
            size = size or own
            if own != size:
                raise DataError("cannot read", [_odd(file, own, size)])
        yield pixels


def _file(folder: Path, files: Sequence[Path], number: int) -> Path:
    if number >= len(files):
        hint = f"frame {number} is wanted, it holds {len(files)}; have some been removed?"
        raise DataError("cannot read", [Issue(shown(folder), "is truncated", hint)])
    return files[number]


def _odd(file: Path, size: Size, usual: Size) -> Issue:
    hint = f"the first frame is {usual[0]}x{usual[1]}; give all frames of a clip one size"
    return Issue(shown(file), f"is {size[0]}x{size[1]}", hint)


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Return what sorts names by their numbers; text and number take turns, so that like is compared with like."""
    parts = _NUMBER.split(path.stem)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name
