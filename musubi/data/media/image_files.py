"""Opening picture files by what they hold, whatever they are called."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile, JpegImagePlugin

from musubi.core.errors import DataError, Issue, shown
from musubi.data.media.readable import readable

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "AVIF", "JXL", "GIF", "TIFF", "HEIF")
"""What is read. Pillow knows more: one runs other programs (EPS), some take nearly any file for theirs."""

_PLUGINS = ("pillow_jxl", "pillow_avif")

_SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"<!doctype", "a web page", "download the picture itself"),
    (0, b"<html", "a web page", "download the picture itself"),
    (0, b"<?xml", "an XML file", "convert it to PNG"),
    (0, b"<svg", "a drawing", "convert it to PNG"),
    (0, b"%pdf", "a PDF", "convert its pages to PNG"),
    (0, b"%!ps", "a PostScript file", "convert it to PNG"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "fetch the file with `git lfs pull`"),
    (0, b"pk\x03\x04", "a ZIP archive", "unpack it"),
    (0, b"8bps", "a Photoshop file", "convert it to PNG"),
    (0, b"\xff\x0a", "JPEG XL", "pip install pillow-jxl-plugin, or convert it to PNG"),
    (4, b"jxl ", "JPEG XL", "pip install pillow-jxl-plugin, or convert it to PNG"),
    (4, b"ftypavif", "AVIF", "update Pillow, or convert it to PNG"),
    (4, b"ftyphei", "HEIC", "convert it to JPEG or PNG"),
    (4, b"ftypmif1", "HEIC", "convert it to JPEG or PNG"),
    (4, b"ftyp", "a video", "give it the ending .mp4"),
    (0, b"\x1ae\xdf\xa3", "a video", "give it the ending .mkv"),
    (8, b"avi ", "a video", "give it the ending .avi"),
)
"""Where a file of another kind has which bytes, in lower case, what it is, and the way out."""


@contextmanager
def opened(path: Path) -> Generator[ImageFile.ImageFile]:
    """Open a picture: its header is read, its pixels are not. Whatever the block meets in the file is a ``DataError``.

    The file's content decides the format, not its name; of several frames the first one counts.

    Raises:
        DataError: The file cannot be read, is no picture, or has more pixels than Pillow takes for safe.
    """
    with readable(path):
        if path.exists() and not path.is_file():  # to open a pipe would wait for ever
            raise DataError("cannot read", [Issue(shown(path), "is not a file", "remove it")])
        with path.open("rb") as file:
            try:
                image = _identified(file, path)
                _check_size(image, path)
                yield image
            except Image.DecompressionBombError as error:
                raise DataError("cannot read", [_too_large(path, str(error))]) from error


def _identified(file: IO[bytes], path: Path) -> ImageFile.ImageFile:
    """Open by the format's own class. ``Image.open`` would warn of pictures above half of the limit."""
    Image.init()
    _load_plugins()
    head = file.read(256)
    for name in _FORMATS:
        factory, accepts = Image.OPEN.get(name, (None, None))
        if factory is not None and accepts is not None and accepts(head[:16]) is True:
            file.seek(0)
            # As a plain JPEG: what it shows is the first of several pictures.
            return JpegImagePlugin.JpegImageFile(file, "") if name == "JPEG" else factory(file, "")
    raise DataError("cannot read", [_no_picture(path, head)])


@cache
def _load_plugins() -> None:
    """Let the plugins for formats that this Pillow may not have register themselves, where they are installed."""
    for name in _PLUGINS:
        with suppress(ImportError):
            import_module(name)


def _no_picture(path: Path, head: bytes) -> Issue:
    if not head:
        return Issue(shown(path), "is empty", "copy or download it again")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for place, signature, what, hint in _SIGNATURES:
        if start[place:].startswith(signature):
            return Issue(shown(path), f"is {what}, not a picture that can be read", hint)
    return Issue(shown(path), "is damaged or not a picture", "open it in a viewer; replace or remove it")


def _check_size(image: ImageFile.ImageFile, path: Path) -> None:
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > 2 * limit:
        raise DataError("cannot read", [_too_large(path, f"{width}x{height} pixels are over the limit of {2 * limit}")])


def _too_large(path: Path, why: str) -> Issue:
    hint = f"make it smaller; if you trust it, raise PIL.Image.MAX_IMAGE_PIXELS ({why})"
    return Issue(shown(path), "has too many pixels", hint)
