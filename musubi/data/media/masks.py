"""Masks for the loss: brought to the size of what they mask, then resized and cropped as that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from musubi.architecture import Size
from musubi.core.errors import DataError, Issue, shown
from musubi.data.media.frame_folder import frame_files
from musubi.data.media.images import read_mask
from musubi.data.media.resize import Pixels, stretched, to_bucket
from musubi.data.media.video import read_clip


def read_masks(path: Path, frames: Sequence[int]) -> Iterator[Pixels]:
    """Yield the masks of different frames, each of shape (height, width), from a clip or a folder of frames.

    Raises:
        DataError: The file cannot be read, or ends before the last frame.
    """
    if path.is_dir():
        files = frame_files(path)
        if frames[-1] >= len(files):
            hint = f"frame {frames[-1]} is wanted, it holds {len(files)}"
            raise DataError("cannot read", [Issue(shown(path), "is truncated", hint)])
        yield from (read_mask(files[number]) for number in frames)
    else:
        yield from (np.asarray(Image.fromarray(frame).convert("L")) for frame in read_clip(path, frames))


def fitted(mask: Pixels, *, size: Size, bucket: Size) -> Pixels:
    """Return a mask as its picture, of that size, reaches its bucket; a mask of another is stretched to it first."""
    same = (mask.shape[1], mask.shape[0]) == size
    return to_bucket(mask if same else stretched(mask, size), bucket)
