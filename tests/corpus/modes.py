"""Pictures of all modes: depths, palettes, transparency, inks, and turned ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from musubi.architecture import Size
from tests.corpus.case import CORNERS, Case, Colour, Corners, Fault, Kept
from tests.corpus.paint import Pixels, noise, picture_bytes, png, quarters, with_chunk, write_bytes

_GREYS: Corners = ((20, 20, 20), (90, 90, 90), (160, 160, 160), (240, 240, 240))

_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a picture is stored so that each orientation brings it upright."""


def _grey() -> Image.Image:
    return quarters(corners=_GREYS).convert("L")


def _see_through() -> Image.Image:
    """Return the four colours, of which the left ones cannot be seen and the right ones half."""
    alpha = Image.new("L", (64, 64), 0)
    alpha.paste(128, (32, 0, 64, 64))
    image = quarters()
    image.putalpha(alpha)
    return image


def _wide(values: Pixels) -> bytes:
    """Return scanlines of 16 bits for each value, the lower 8 of which are a trap for those who shift too far."""
    deep = values.astype(np.uint16) * 256 + 255
    return b"".join(b"\0" + line.astype(">u2").tobytes() for line in deep)


def _deep_png(image: Image.Image, *, colour: int) -> bytes:
    return png(64, 64, depth=16, colour=colour, scanlines=_wide(np.asarray(image)))


def _packed(depth: int) -> bytes:
    """Return a grey PNG of 1, 2 or 4 bits: the darkest and the brightest value, left and right."""
    line = b"\0" + b"\x00" * (4 * depth) + b"\xff" * (4 * depth)
    return png(64, 64, depth=depth, colour=0, scanlines=line * 64)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _turned(orientation: int, kind: str) -> bytes:
    stored = quarters((64, 32)).transpose(_STORED[orientation])
    lossless = {"lossless": True} if kind == "webp" else {}
    return picture_bytes(kind, stored, exif=_exif(orientation), **lossless)


def _comment(length: int) -> bytes:
    """Return the data of a compressed comment (ISO 15948, 11.3.4.4)."""
    return b"Comment\0\0" + zlib.compress(b"x" * length)


def _good(
    name: str,
    content: bytes,
    *,
    file: str = "odd.png",
    corners: Corners = CORNERS,
    tolerance: int = 2,
    size: Size = (64, 64),
) -> Case:
    kept = Kept(file, corners=corners, tolerance=tolerance, size=size)
    return Case(name=name, write=lambda root: write_bytes(root / file, content), kept=[kept])


def _bad(name: str, content: bytes, message: str) -> Case:
    """Return the case of a picture whose header is fine, but whose values mean nothing."""

    def write(root: Path) -> None:
        write_bytes(root / "odd.png", content)

    return Case(name=name, write=write, kept=[Kept("odd.png")], unmasked={"odd.png": Fault(message)})


def _inks(corners: Corners) -> Image.Image:
    """Return the colours in cyan, magenta, yellow and black."""
    return quarters(corners=corners).convert("CMYK")


def _palette(*, transparency: object = None) -> bytes:
    image = quarters().quantize(4)
    return picture_bytes("png", image, **({} if transparency is None else {"transparency": transparency}))


def _float_tiff(*, top: float) -> bytes:
    values = np.asarray(_grey(), np.float32) / 255 * top
    return picture_bytes("tiff", Image.fromarray(values))


def _half(left: Colour, right: Colour) -> Corners:
    return (left, right, left, right)


CASES = (
    _good("a grey picture has three equal colours", picture_bytes("png", _grey()), corners=_GREYS, tolerance=0),
    _good("alpha beside grey is dropped", picture_bytes("png", _grey().convert("LA")), corners=_GREYS, tolerance=0),
    _good("alpha is dropped, and what it hid is seen", picture_bytes("png", _see_through()), tolerance=0),
    _good(
        "alpha of a WebP is dropped",
        picture_bytes("webp", _see_through(), lossless=True, exact=True),
        file="odd.webp",
        tolerance=0,
    ),
    _good("a picture with a palette is read", _palette(), tolerance=0),
    _good("a palette with one transparent colour is read", _palette(transparency=1), tolerance=0),
    _good("a palette with an alpha for each colour is read", _palette(transparency=b"\x00\x80\xff\x40"), tolerance=0),
    _good("RGB with a transparent colour is read", picture_bytes("png", transparency=CORNERS[0]), tolerance=0),
    _good("grey with a transparent value is read", picture_bytes("png", _grey(), transparency=20), corners=_GREYS),
    *(
        _good(f"a PNG of {depth} bits is black and white", _packed(depth), corners=_half((0, 0, 0), (255, 255, 255)))
        for depth in (1, 2, 4)
    ),
    _good("grey of 16 bits keeps its upper 8", _deep_png(_grey(), colour=0), corners=_GREYS, tolerance=0),
    _good("colours of 16 bits keep their upper 8", _deep_png(quarters(), colour=2), tolerance=1),
    _good("colours and alpha of 16 bits are read", _deep_png(_see_through(), colour=6), tolerance=1),
    _good(
        "grey and alpha of 16 bits are read",
        _deep_png(_grey().convert("LA"), colour=4),
        corners=_GREYS,
        tolerance=1,
    ),
    _good(
        "grey of 16 bits in a TIFF called .png keeps its upper 8",
        picture_bytes("tiff", Image.fromarray(np.asarray(_grey(), np.uint16) * 257)),
        corners=_GREYS,
        tolerance=0,
    ),
    _good("inks of a JPEG become colours", picture_bytes("jpeg", _inks(CORNERS)), file="odd.jpg", tolerance=12),
    _good("inks of a TIFF called .jpg become colours", picture_bytes("tiff", _inks(CORNERS)), file="odd.jpg"),
    _good("a grey JPEG is read", picture_bytes("jpeg", _grey()), file="odd.jpg", corners=_GREYS, tolerance=4),
    _good("a picture of 0.0 to 1.0 is read", _float_tiff(top=1.0), corners=_GREYS),
    _bad("a picture of floats above 1 is named, for nobody knows what is white", _float_tiff(top=255.0), "values (F)"),
    _bad("a picture in Lab is named", picture_bytes("tiff", Image.new("LAB", (64, 64), (90, 9, 9))), "values (LAB)"),
    *(
        _good(
            f"a JPEG of orientation {number} is turned upright",
            _turned(number, "jpeg"),
            file="odd.jpg",
            size=(64, 32),
            tolerance=8,
        )
        for number in _STORED
    ),
    _good("a PNG of orientation 6 is turned upright", _turned(6, "png"), size=(64, 32), tolerance=0),
    _good("a WebP of orientation 8 is turned upright", _turned(8, "webp"), file="odd.webp", size=(64, 32), tolerance=0),
    _good(
        "an orientation that does not exist turns nothing",
        picture_bytes("jpeg", exif=_exif(9)),
        file="odd.jpg",
        tolerance=8,
    ),
    _good("EXIF data that are noise turn nothing", with_chunk(picture_bytes(), b"eXIf", noise(40)), tolerance=0),
    _good(
        "EXIF data cut off turn nothing", with_chunk(picture_bytes(), b"eXIf", _exif(6).tobytes()[6:17]), tolerance=0
    ),
    _good("a colour profile that is noise is ignored", picture_bytes("png", icc_profile=noise(90)), tolerance=0),
    _good("a gamma is ignored", with_chunk(picture_bytes(), b"gAMA", struct.pack(">I", 10)), tolerance=0),
    _good("a resolution of 0 dots is ignored", with_chunk(picture_bytes(), b"pHYs", bytes(9)), tolerance=0),
    _good("a chunk that nobody knows is passed over", with_chunk(picture_bytes(), b"quUx", noise(99)), tolerance=0),
    _good("a long comment is passed over", with_chunk(picture_bytes(), b"zTXt", _comment(1 << 19)), tolerance=0),
)
"""Modes, by what one sees in a viewer that ignores colour profiles."""
