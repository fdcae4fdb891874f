"""Frames as tensors: at the size that is asked for, and in the range that networks take.

Shape suffixes: B batch, C channels, F frames, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from musubi.architecture import Size
from musubi.data.media.resize import to_bucket

if TYPE_CHECKING:
    from torch import Tensor


def covered(frames: Tensor, size: Size) -> Tensor:
    """Return uint8 frames (F, H, W, 3) scaled to cover a (width, height) and cropped around the centre."""
    import torch

    return torch.stack([torch.tensor(np.asarray(to_bucket(frame.cpu().numpy(), size))) for frame in frames])


def scaled(pixels_BFHWC: Tensor) -> Tensor:
    """Return uint8 pixels as float32 videos (B, C, F, H, W) in [-1, 1]."""
    return (pixels_BFHWC.float() / 127.5 - 1.0).permute(0, 4, 1, 2, 3)
