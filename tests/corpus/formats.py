"""Pictures of all formats, under right and wrong names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import features

from tests.corpus.case import CORNERS, Case, Kept
from tests.corpus.paint import noise, picture_bytes, png, quarters, write_bytes, write_picture

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and the steps from there, of each pass (ISO 15948, 8.2)."""

_OTHERS = (quarters(corners=(CORNERS[3], CORNERS[2], CORNERS[1], CORNERS[0])),)
"""What follows the first picture of an animation, which is none of its colours in its place."""


def _interlaced() -> bytes:
    values = np.asarray(quarters())
    passes = (values[row::down, column::across] for column, row, across, down in _ADAM7)
    scanlines = b"".join(b"\0" + line.tobytes() for part in passes for line in part)
    return png(64, 64, depth=8, colour=2, scanlines=scanlines, interlaced=True)


def _without_jxl() -> str | None:
    return "a plugin reads JPEG XL here" if find_spec("pillow_jxl") else None


def _without_avif() -> str | None:
    return None if features.check("avif") else "Pillow has no AVIF here"


def _good(name: str, file: str, content: bytes, *, tolerance: int = 2) -> Case:
    """Return the case of a picture that is read like any other."""
    kept = Kept(file, corners=CORNERS, tolerance=tolerance)
    return Case(name=name, write=lambda root: write_bytes(root / file, content), kept=[kept])


def _bad(name: str, file: str, content: bytes, message: str) -> Case:
    return Case(name=name, write=lambda root: write_bytes(root / file, content), reported={file: message})


def _unread(ending: str) -> Case:
    """Return the case of a medium by its name that is not read, with a caption or without."""

    def write(root: Path) -> None:
        write_bytes(root / f"odd{ending}", noise(100))
        (root / f"alone{ending}").write_bytes(noise(100))

    reported = {f"odd{ending}": "not read", f"alone{ending}": "not read"}
    return Case(name=f"a file ending in {ending} is named, as it would be missed", write=write, reported=reported)


CASES = (
    _good("a progressive JPEG is read", "odd.jpg", picture_bytes("jpeg", progressive=True), tolerance=8),
    _good("a lossy WebP is read", "odd.webp", picture_bytes("webp"), tolerance=8),
    _good("a lossless WebP is read to the value", "odd.webp", picture_bytes("webp", lossless=True), tolerance=0),
    _good("a BMP is read", "odd.bmp", picture_bytes("bmp"), tolerance=0),
    Case(
        name="an AVIF is read",
        write=lambda root: write_picture(root / "odd.avif"),
        kept=[Kept("odd.avif", corners=CORNERS, tolerance=10)],
        needs=_without_avif,
    ),
    Case(
        name="a JPEG XL without a plugin for it is named with the plugin",
        write=lambda root: write_bytes(root / "odd.jxl", b"\xff\x0a" + noise(200)),
        reported={"odd.jxl": "is JPEG XL"},
        needs=_without_jxl,
    ),
    _good("an ending in capitals is an ending", "odd.PNG", picture_bytes(), tolerance=0),
    _good("an ending in mixed letters is an ending", "odd.JpEg", picture_bytes("jpeg"), tolerance=8),
    _good("an interlaced PNG is read", "odd.png", _interlaced(), tolerance=0),
    _good("a PNG called .jpg is read for what it is", "odd.jpg", picture_bytes(), tolerance=0),
    _good("a JPEG called .png is read for what it is", "odd.png", picture_bytes("jpeg"), tolerance=8),
    _good("a WebP called .jpeg is read for what it is", "odd.jpeg", picture_bytes("webp", lossless=True)),
    _good("a GIF called .png is read for what it is", "odd.png", picture_bytes("gif"), tolerance=0),
    _good("a TIFF called .jpg is read for what it is", "odd.jpg", picture_bytes("tiff"), tolerance=0),
    _good(
        "a compressed TIFF called .png is read for what it is",
        "odd.png",
        picture_bytes("tiff", compression="tiff_lzw"),
        tolerance=0,
    ),
    _good(
        "of an animated GIF called .png the first picture is taken",
        "odd.png",
        picture_bytes("gif", save_all=True, append_images=_OTHERS),
        tolerance=0,
    ),
    _good(
        "of an animated PNG the first picture is taken",
        "odd.png",
        picture_bytes("png", save_all=True, append_images=_OTHERS),
        tolerance=0,
    ),
    _good(
        "of an animated WebP the first picture is taken",
        "odd.webp",
        picture_bytes("webp", save_all=True, append_images=_OTHERS, lossless=True),
    ),
    _good(
        "of a JPEG with several pictures the first is taken",
        "odd.jpg",
        picture_bytes("mpo", save_all=True, append_images=_OTHERS),
        tolerance=8,
    ),
    *map(_unread, (".gif", ".tif", ".TIFF", ".heic", ".heif", ".psd", ".exr", ".ts", ".mts")),
    *map(_unread, (".jfif", ".tga", ".ppm", ".jp2", ".svg", ".ico", ".dng", ".cr2", ".nef", ".arw")),
    *map(_unread, (".3gp", ".m2ts", ".ogv", ".vob", ".mxf", ".gifv")),
    _bad("an icon called .png is named", "odd.png", picture_bytes("ico"), "not a picture"),
    _bad("a PostScript file called .jpg is not run", "odd.jpg", picture_bytes("eps"), "PostScript"),
    _bad("a PPM called .png is named", "odd.png", picture_bytes("ppm"), "not a picture"),
    Case(
        name="a file without an ending that has a caption is named",
        write=lambda root: write_bytes(root / "odd", picture_bytes()),
        reported={"odd": "without extension is not read"},
    ),
    Case(
        name="files that are no media and have no caption are nobody's business",
        write=lambda root: [
            (root / name).write_bytes(noise(50))
            for name in ("notes.md", "Thumbs.db", "a.json", ".DS_Store", "lonely.txt")
        ],
    ),
)
"""Formats, by what a person who throws files into a folder expects."""
