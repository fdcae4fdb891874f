"""Pictures of absurd sizes and aspect ratios."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PIL import Image

from musubi.architecture import Size
from musubi.data.dataset import Dataset
from musubi.data.sources.folder import Folder
from tests.corpus.case import CORNERS, Case, Fault, Kept, dataset
from tests.corpus.paint import picture_bytes, png, quarters, write_bytes, write_picture

_ENLARGED = {"odd.png": "enlarged"}
_ALL_ENLARGED = {"fine.png": "enlarged", "steady.mp4": "enlarged"}


def _large(root: Path) -> Dataset:
    """Return a dataset at a size people train at."""
    return dataset(Folder(root), resolution=(1024, 1024))


def _as_it_is(root: Path) -> Dataset:
    return dataset(Folder(root), no_upscale=True)


def _sized(name: str, size: Size, *, file: str = "odd.png", colour: bool = False) -> Case:
    kept = Kept(file, size=size, corners=CORNERS if colour else None, tolerance=6)
    noted = {file: "enlarged"} if min(size) < 64 else {}
    return Case(name=name, write=lambda root: write_picture(root / file, quarters(size)), kept=[kept], noted=noted)


def _claiming(width: int, height: int) -> bytes:
    """Return a PNG that says it has another size than its content."""
    return png(width, height, depth=8, colour=0, scanlines=bytes(100))


def _bmp(width: int, height: int) -> bytes:
    """Return a BMP of which only the size is odd."""
    content = bytearray(picture_bytes("bmp"))
    content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(content)


def _nothing(name: str, width: int, height: int) -> Case:
    write = partial(_write_claim, width=width, height=height)
    return Case(name=name, write=write, reported={"odd.png": "damaged"})


def _write_claim(root: Path, *, width: int, height: int) -> None:
    write_bytes(root / "odd.png", _claiming(width, height))


CASES = (
    Case(
        name="a picture of one pixel is enlarged, and noted",
        write=lambda root: write_picture(root / "odd.png", Image.new("RGB", (1, 1), CORNERS[0])),
        kept=[Kept("odd.png", size=(1, 1), corners=(CORNERS[0],) * 4)],
        noted=_ENLARGED,
    ),
    Case(
        name="a picture of one pixel that may not be enlarged is named",
        write=lambda root: write_picture(root / "odd.png", Image.new("RGB", (1, 1))),
        read=_as_it_is,
        reported={"odd.png": "too small"},
    ),
    Case(
        name="a picture just below a step that may not be enlarged is named",
        write=lambda root: write_picture(root / "odd.png", quarters((15, 64))),
        read=_as_it_is,
        reported={"odd.png": "too small"},
    ),
    Case(
        name="a picture of just one step that may not be enlarged stays as it is",
        write=lambda root: write_picture(root / "odd.png", quarters((16, 16))),
        read=_as_it_is,
        kept=[Kept("odd.png", size=(16, 16), corners=CORNERS, tolerance=0)],
    ),
    _sized("a picture of odd sides is fitted", (67, 61), colour=True),
    _sized("a picture of prime sides far apart is fitted", (1009, 13)),
    _sized("a picture one pixel high is fitted", (2000, 1)),
    _sized("a picture one pixel wide is fitted", (1, 2000)),
    _sized("the widest JPEG there can be is fitted", (65500, 1), file="odd.jpg"),
    _sized("the highest WebP there can be is fitted", (1, 16383), file="odd.webp"),
    Case(
        name="the widest JPEG there can be does not fill the memory at a real resolution",
        write=lambda root: write_picture(root / "odd.jpg", quarters((65500, 1))),
        read=_large,
        kept=[Kept("odd.jpg", size=(65500, 1))],
        noted=_ALL_ENLARGED,
    ),
    Case(
        name="a thread of a picture does not fill the memory at a real resolution",
        write=lambda root: write_picture(root / "odd.png", quarters((2, 30000))),
        read=_large,
        kept=[Kept("odd.png", size=(2, 30000))],
        noted=_ALL_ENLARGED,
    ),
    _sized("a large picture is shrunk", (3000, 2600), colour=True),
    _nothing("a PNG 0 wide is named", 0, 64),
    _nothing("a PNG 0 high is named", 64, 0),
    Case(
        name="a BMP of no pixels is named",
        write=lambda root: write_bytes(root / "odd.bmp", _bmp(0, 64)),
        reported={"odd.bmp": "damaged"},
    ),
    Case(
        name="a picture that claims more pixels than is safe is named",
        write=lambda root: write_bytes(root / "odd.png", _claiming(100_000, 100_000)),
        reported={"odd.png": "too many pixels"},
    ),
    Case(
        name="a picture that claims two billion columns is named",
        write=lambda root: write_bytes(root / "odd.png", _claiming(2**31 - 1, 2**31 - 1)),
        reported={"odd.png": "too many pixels"},
    ),
    Case(
        name="a picture that claims more pixels than it has, but not too many, is found by decoding",
        write=lambda root: write_bytes(root / "odd.png", _claiming(10_000, 10_000)),
        kept=[Kept("odd.png", size=(10_000, 10_000))],
        unmasked={"odd.png": Fault("damaged")},
    ),
)
"""Sizes, by what a person expects who does not know how large the files are."""
