"""Pictures that are damaged, cut off or something else altogether."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from tests.corpus.case import CORNERS, Case, Fault, Kept
from tests.corpus.paint import noise, overwritten, picture_bytes, plain_clip, quarters, with_chunk, write_bytes
from tests.data.files import pixels

_PAGE = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
_SIZE = (192, 192)
"""So large that their headers are a small part of the files."""


def _busy(kind: str, **options: object) -> bytes:
    """Return a picture with so much on it that its file cannot be cut without loss."""
    return picture_bytes(kind, Image.fromarray(pixels(*_SIZE, seed=5)), **options)


def _named(name: str, content: bytes, message: str, *, file: str = "odd.png") -> Case:
    """Return the case of a file of which the first look shows that it is no picture."""

    def write(root: Path) -> None:
        write_bytes(root / file, content)

    return Case(name=name, write=write, reported={file: message})


def _unmasked(name: str, content: bytes, *, file: str = "odd.png") -> Case:
    """Return the case of a picture with a good header, of which decoding shows that it is damaged."""

    def write(root: Path) -> None:
        write_bytes(root / file, content)

    return Case(name=name, write=write, kept=[Kept(file, size=_SIZE)], unmasked={file: Fault("damaged")})


def _good(name: str, content: bytes, *, file: str = "odd.png", tolerance: int = 2) -> Case:
    kept = Kept(file, corners=CORNERS, tolerance=tolerance)
    return Case(name=name, write=lambda root: write_bytes(root / file, content), kept=[kept])


def _cut(kind: str, ending: str) -> Iterator[Case]:
    """Yield the cases of a picture cut at several places."""
    content = _busy(kind)
    for parts in (1, 2, 3):
        name = f"a {kind.upper()} cut off after {parts} of 4 parts is found by decoding"
        yield _unmasked(name, content[: len(content) * parts // 4], file=f"odd.{ending}")


def _zip() -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("picture.png", picture_bytes())
    return content.getvalue()


def _checksum_wrong() -> bytes:
    """Return a PNG in whose pixels one bit was turned."""
    content = bytearray(_busy("png"))
    content[content.index(b"IDAT") + 1000] ^= 1
    return bytes(content)


def _second_frame_cut() -> bytes:
    whole = picture_bytes("png", save_all=True, append_images=[Image.fromarray(pixels(64, 64))])
    return whole[: whole.rindex(b"fdAT") + 40]


def _two_jpegs() -> bytes:
    other = quarters(corners=(CORNERS[3], CORNERS[2], CORNERS[1], CORNERS[0]))
    return picture_bytes("jpeg") + picture_bytes("jpeg", other)


def _comment_wrong() -> bytes:
    content = bytearray(with_chunk(picture_bytes(), b"quUx", noise(50)))
    content[content.index(b"quUx") + 20] ^= 1
    return bytes(content)


CASES = (
    _named("an empty file is named", b"", "is empty"),
    _named("a single byte is named", b"\x89", "damaged"),
    _named("a signature without anything is named", picture_bytes()[:8], "damaged"),
    _named("a PNG cut off in its header is named", picture_bytes()[:20], "damaged"),
    _named("a JPEG cut off in its header is named", picture_bytes("jpeg")[:20], "damaged", file="odd.jpg"),
    _named("a WebP cut off in its header is named", picture_bytes("webp")[:14], "damaged", file="odd.webp"),
    _named("a BMP cut off in its header is named", picture_bytes("bmp")[:20], "damaged", file="odd.bmp"),
    _named("zeros are named", bytes(5000), "damaged"),
    _named("noise is named", noise(5000), "damaged"),
    _named("text is named", b"a lovely picture of a cat\n" * 9, "damaged"),
    _named("a web page called .png is named", _PAGE, "web page"),
    _named("a web page behind blank lines is named", b"\xef\xbb\xbf\r\n\r\n" + _PAGE, "web page"),
    _named("a drawing called .png is named", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "drawing"),
    _named("an XML error of a download is named", b"<?xml version='1.0'?><Error/>", "XML"),
    _named("JSON called .png is named", b'{"error": "rate limited"}', "damaged"),
    _named("a PDF called .jpg is named", b"%PDF-1.7\n" + noise(90), "PDF", file="odd.jpg"),
    _named("an archive called .png is named", _zip(), "ZIP"),
    _named("a packed picture is named", gzip.compress(picture_bytes()), "damaged"),
    _named("a pointer of Git LFS is named with the way out", _POINTER, "Git LFS"),
    _named("a clip called .png is named", plain_clip(), "a video"),
    _named("a clip called .jpg is named", plain_clip(), "a video", file="odd.jpg"),
    _named("a HEIC called .jpg is named", b"\0\0\0\x18ftypheic" + noise(90), "HEIC", file="odd.jpg"),
    _named("a picture behind noise is named", noise(64) + picture_bytes("jpeg"), "damaged", file="odd.jpg"),
    *_cut("png", "png"),
    *_cut("jpeg", "jpg"),
    _named("a WebP cut off is named at the first look", _busy("webp")[:1500], "damaged", file="odd.webp"),
    *_cut("bmp", "bmp"),
    _unmasked("a PNG with pixels of noise is found by decoding", overwritten(_busy("png"), 0.2, 0.8)),
    _unmasked("a PNG of which a bit was turned is found by decoding", _checksum_wrong()),
    _unmasked("a PNG without pixels is found by decoding", _busy("png")[:33] + _busy("png")[-12:]),
    _good("noise behind the end of a PNG does not matter", picture_bytes() + noise(999), tolerance=0),
    _good(
        "noise behind the end of a JPEG does not matter",
        picture_bytes("jpeg") + noise(999),
        file="odd.jpg",
        tolerance=8,
    ),
    _good("a JPEG in which another is hidden behind its end is itself", _two_jpegs(), file="odd.jpg", tolerance=8),
    _good("a PNG without its last chunk is whole", picture_bytes()[:-12], tolerance=0),
    _good("an animation of which the second picture is cut off has its first", _second_frame_cut(), tolerance=0),
    _named("a PNG with a wrong checksum before its pixels is named", _comment_wrong(), "damaged"),
)
"""Damage, by what a person expects: whatever cannot be seen whole is named, whatever can is kept."""
