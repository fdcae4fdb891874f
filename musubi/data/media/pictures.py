"""Pictures of samples, gathered for encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from musubi.architecture import Size
from musubi.batch import Sample
from musubi.core.errors import DataError, Issue

if TYPE_CHECKING:
    from torch import Tensor


def picture_batch(samples: Sequence[Sample]) -> Tensor:
    """Return the pixels of samples of equal shapes, uint8 (samples, frames, height, width, 3).

    Raises:
        DataError: Samples have none; all are named.
    """
    import torch

    empty = [Issue(sample.name, "has no pixels") for sample in samples if sample.pixels is None]
    if empty:
        raise DataError("nothing to encode", empty)
    return torch.stack([sample.pixels for sample in samples if sample.pixels is not None])


def control_batches(samples: Sequence[Sample]) -> list[Tensor]:
    """Return the pictures to change of samples of equal shapes: the first ones together, the second ones, and so on.

    Raises:
        DataError: Samples have none; all are named.
    """
    import torch

    controls = [sample.controls.get("control", ()) for sample in samples]
    empty = [Issue(s.name, "has no control") for s, pictures in zip(samples, controls, strict=True) if not pictures]
    if empty:
        raise DataError("nothing to change", empty)
    return [torch.stack([picture[:1] for picture in same]) for same in zip(*controls, strict=True)]


def picture_size(picture: Tensor) -> Size:
    """Return the (width, height) of a picture (1, height, width, 3)."""
    return picture.shape[2], picture.shape[1]
