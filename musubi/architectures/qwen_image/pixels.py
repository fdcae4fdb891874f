"""Pictures as Qwen2.5-VL's vision side takes them, without torchvision: patches of pixels in its own order.

Shape suffixes: C channels, H height, W width.
"""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from musubi.architecture import Size
from musubi.architectures.qwen_image.sizes import official
from musubi.core.errors import DataError, Issue
from musubi.data.media.resize import lanczos

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_LEAST, _MOST = 56 * 56, 28 * 28 * 16384
"""Pixels that a picture is given at least and at most, as in the published processor."""


@attrs.frozen(kw_only=True)
class Patching:
    """Sides of a patch in pixels, frames in a patch, and sides of the square of patches that make one token."""

    patch: int = 14
    frames: int = 2
    merge: int = 2

    @property
    def step(self) -> int:
        """What sides are multiples of."""
        return self.patch * self.merge


@attrs.frozen(kw_only=True, eq=False)
class Patches:
    """A picture's patches (patches, pixels of one), and how many rows and columns of them there are."""

    values: Tensor
    rows: int
    columns: int

    def tokens(self, merge: int) -> int:
        """Return how many tokens stand for the picture."""
        return self.rows * self.columns // merge**2


def at_area(picture_HWC: Tensor, area: int) -> Tensor:
    """Return a uint8 picture at the authors' size of about an area, as their pipelines stretch it: by Lanczos."""
    size = official((picture_HWC.shape[1], picture_HWC.shape[0]), area)
    return torch.tensor(lanczos(picture_HWC.cpu().numpy(), size))


def patches_of(picture_HWC: Tensor, patching: Patching) -> Patches:
    """Return the patches of a uint8 picture, in float32, as the published processor makes them.

    Sides are rounded to whole tokens, the picture is shown twice, as two frames, and the patches of a token follow one
    another. Source: ``Qwen2VLImageProcessor`` of transformers on torchvision, whose numbers these are to the last bit.
    """
    step, patch, merge = patching.step, patching.patch, patching.merge
    width, height = rounded((picture_HWC.shape[1], picture_HWC.shape[0]), step)
    image_CHW = picture_HWC.permute(2, 0, 1)
    if image_CHW.shape[1:] != (height, width):
        image_CHW = functional.interpolate(
            image_CHW[None], size=(height, width), mode="bicubic", antialias=True, align_corners=False
        )[0]
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))
    rows, columns = height // patch, width // patch
    squares = ((image_CHW.float() - mean) / std).reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
    ordered = squares.permute(1, 4, 2, 5, 0, 3, 6)[..., None, :, :].expand(-1, -1, -1, -1, -1, patching.frames, -1, -1)
    return Patches(values=ordered.reshape(rows * columns, -1), rows=rows, columns=columns)


def rounded(size: Size, step: int) -> Size:
    """Return the (width, height) in whole tokens that is nearest to a size, within the published bounds.

    Raises:
        DataError: One side is more than 200 times the other, which the model refuses.
    """
    width, height = size
    if max(size) > 200 * min(size):
        message = f"is too narrow a picture: {width}x{height}, one side may be 200 times the other at most"
        raise DataError("cannot be shown to the language model", [Issue("control", message, "crop it")])
    sides = [round(side / step) * step for side in size]
    if math.prod(sides) > _MOST:
        shrink = math.sqrt(width * height / _MOST)
        sides = [max(step, math.floor(side / shrink / step) * step) for side in size]
    elif math.prod(sides) < _LEAST:
        grow = math.sqrt(_LEAST / (width * height))
        sides = [math.ceil(side * grow / step) * step for side in size]
    return sides[0], sides[1]
