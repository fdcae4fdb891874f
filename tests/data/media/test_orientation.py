from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from musubi.data.media.image_files import opened
from musubi.data.media.images import read_image
from musubi.data.media.orientation import sideways, turn
from tests.data.files import pixels, png_chunk, raw_png


def exif(orientation: int, order: str = ">") -> bytes:
    """Return EXIF data of a directory with one tag before the orientation."""
    entries = struct.pack(f"{order}HHII", 0x0100, 4, 1, 64) + struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8)
    return start + struct.pack(f"{order}H", 2) + entries + struct.pack(f"{order}I", 0)


def turned(path: Path) -> Image.Transpose | None:
    with opened(path) as image:
        return turn(image)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_data_say(tmp_path: Path, orientation: int, ending: str, order: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels(32, 24)).save(path, exif=b"Exif\0\0" + exif(orientation, order))

    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(read_image(path), expected)
    assert sideways(turned(path)) == (orientation >= 5)


def test_a_png_may_have_its_exif_data_behind_the_pixels(tmp_path: Path) -> None:
    path = raw_png(tmp_path / "a.png", pixels(8, 4), after=png_chunk(b"eXIf", exif(6)))

    assert turned(path) == Image.Transpose.ROTATE_270
    assert read_image(path).shape == (8, 4, 3)


def test_a_png_may_have_its_exif_data_as_text_of_imagemagick(tmp_path: Path) -> None:
    data = b"Exif\0\0" + exif(8)
    text = f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()
    path = raw_png(tmp_path / "a.png", pixels(8, 4), before=png_chunk(b"tEXt", b"Raw profile type exif\0" + text))

    assert turned(path) == Image.Transpose.ROTATE_90


@pytest.mark.parametrize(
    "data",
    [b"", b"II*\0", b"MM\0*\0\0\xff\xff", exif(6)[:20], exif(0), exif(9), exif(6).replace(b"MM", b"XX"), b"Exif\0\0"],
)
def test_damaged_exif_data_turn_nothing(tmp_path: Path, data: bytes) -> None:
    path = raw_png(tmp_path / "a.png", pixels(8, 4), before=png_chunk(b"eXIf", data))

    assert turned(path) is None
    assert read_image(path).shape == (4, 8, 3)


def test_a_jpeg_inside_jpeg_xl_is_turned_but_not_what_the_decoder_has_turned(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl", reason="the plugin for JPEG XL is not a dependency")
    Image.fromarray(pixels(32, 24)).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif(6))
    with Image.open(tmp_path / "a.jpg") as jpeg:
        jpeg.save(tmp_path / "a.jxl", lossless_jpeg=True)
    Image.fromarray(pixels(32, 24)).save(tmp_path / "b.jxl", exif=exif(6))

    assert turned(tmp_path / "a.jxl") == Image.Transpose.ROTATE_270
    assert turned(tmp_path / "b.jxl") is None
