"""Pictures: what they are, their pixels, and masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from musubi.core.errors import DataError, Issue, shown
from musubi.data.media.image_files import opened
from musubi.data.media.orientation import sideways, turn
from musubi.data.media.resize import Pixels
from musubi.data.sample import Probe

_PLAIN = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"})
"""The modes that Pillow turns into RGB; not those of 16 bits and more, which it clips."""

_STRIP = 1 << 18
"""How many pixels are converted at a time: they stay in the cache. As a whole, Pillow copies a picture three times."""


def probe_image(path: Path) -> Probe:
    """Return the size of a picture as it is shown, reading no more than its header.

    Raises:
        DataError: The file cannot be read, is no picture, or is too large.
    """
    with opened(path) as image:
        width, height = image.size
        size = (height, width) if sideways(turn(image)) else (width, height)
    return Probe(kind="image", size=size)


def read_image(path: Path) -> Pixels:
    """Return a picture as 8-bit RGB of shape (height, width, 3).

    It is turned as its EXIF orientation says. Alpha is dropped without a background, colour profiles are ignored, of 16
    bits the upper 8 count. Of an animated picture it is the first frame.

    Raises:
        DataError: The file cannot be read, is damaged, no picture, or too large.
    """
    with opened(path) as image:
        upright = _upright(image)
        if upright.mode in _PLAIN:
            return _converted(upright, "RGB")
        return np.repeat(_deep(upright, path)[:, :, None], 3, axis=2)


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Return a mask of shape (height, width): 255 where the loss counts, 0 where it does not.

    That is the picture's alpha channel, or its brightness where it has none or is opaque all over.

    Raises:
        DataError: The file cannot be read, is damaged, no picture or too large, or holds zeros and ones.
    """
    with opened(path) as image:
        mask = _mask(_upright(image), path)
    if mask.max() == 1:
        raise DataError("cannot read", [Issue(shown(path), "holds no value above 1", "white is 255: scale the mask")])
    return mask


def _mask(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode not in _PLAIN:
        return _deep(image, path)
    if image.has_transparency_data:
        alpha: NDArray[np.uint8] = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() < 255:
            return alpha
    return _converted(image, "L")


def _upright(image: ImageFile.ImageFile) -> Image.Image:
    turned = turn(image)
    image.load()
    return image if turned is None else image.transpose(turned)


def _converted(image: Image.Image, mode: str) -> Pixels:
    """Return an 8-bit picture's values in another mode, converted strip by strip."""
    image.info.pop("transparency", None)  # is dropped; Pillow would warn where it cannot keep it
    width, height = image.size
    rows = max(1, _STRIP // width)
    if rows >= height:
        return np.array(image if image.mode == mode else image.convert(mode))
    result = np.empty((height, width, 3) if mode == "RGB" else (height, width), np.uint8)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        result[top : top + rows] = np.asarray(strip if strip.mode == mode else strip.convert(mode))
    return result


def _deep(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """Return grey of shape (height, width) from 16 bits, which keep their upper 8 as colours do, or from 0.0 to 1.0.

    Raises:
        DataError: The values go beyond, or the mode is another.
    """
    values: NDArray[Any] = np.asarray(image)
    if image.mode.startswith("I") and 0 <= values.min() <= values.max() <= 65535:
        return np.asarray(values >> 8, np.uint8)
    if image.mode == "F" and 0 <= values.min() <= values.max() <= 1:
        return np.asarray(np.rint(values * 255), np.uint8)
    hint = "convert it to RGB of 8 bits"
    raise DataError("cannot read", [Issue(shown(path), f"has values ({image.mode}) that are not read", hint)])
