"""Which way up a picture is to be shown, from its EXIF data, without decoding its pixels."""

from __future__ import annotations

import struct
from typing import IO

from PIL import Image, ImageFile

_ORIENTATION = 0x0112
_START = b"Exif\x00\x00"

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn(image: ImageFile.ImageFile) -> Image.Transpose | None:
    """Return what brings an opened picture upright, None where it is; damaged EXIF data turn nothing.

    To be asked before the pixels are decoded, which moves on in the file.
    """
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return None  # the decoder has turned it; only of a JPEG inside it gives the pixels as they are stored
    try:
        return _TURNS.get(_orientation(_exif(image)))
    except (struct.error, ValueError, TypeError):
        return None


def sideways(turned: Image.Transpose | None) -> bool:
    """Return whether a turn exchanges width and height."""
    return turned in {_TURNS[number] for number in (5, 6, 7, 8)}


def _exif(image: ImageFile.ImageFile) -> bytes:
    stored = image.info.get("exif")
    if isinstance(stored, bytes):
        return stored
    profile = image.info.get("Raw profile type exif")  # as ImageMagick writes it into a PNG
    if isinstance(profile, str):
        return bytes.fromhex("".join(profile.split("\n")[3:]))
    return _late_exif(image.fp) if image.format == "PNG" and image.fp is not None else b""


def _late_exif(file: IO[bytes]) -> bytes:
    """Return the EXIF data of a PNG wherever they are; Pillow finds those behind the pixels only by decoding these."""
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return file.read(length)
            file.seek(length + 4, 1)
        return b""
    finally:
        file.seek(place)


def _orientation(exif: bytes) -> int:
    """Return the number 1 to 8 of the first directory's tag, 0 where there is none (TIFF 6.0, section 2)."""
    data = exif.removeprefix(_START)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return 0
    start = int(struct.unpack_from(f"{order}I", data, 4)[0])
    count = int(struct.unpack_from(f"{order}H", data, start)[0])
    for number in range(count):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, start + 2 + 12 * number)
        if tag == _ORIENTATION:
            return int(value)
    return 0
