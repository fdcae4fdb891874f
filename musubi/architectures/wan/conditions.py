"""What Wan's image and control models see beside the noisy latents: pictures at given frames, control videos.

The layout is that of the authors' code (``wan/image2video.py``, ``wan/first_last_frame2video.py``).

Shape suffixes: B batch, C channels, F frames, H height, W width; M the four frames that one latent frame stands for.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Encode = Callable[[Tensor], Tensor]
"""Encodes videos (B, 3, F, H, W) in [-1, 1] as latents (B, 16, F, H, W): ``partial(encode_video, vae)``."""

_STEP = 4
"""Frames to a latent frame, the first one excepted."""


def latents_image(encode: Encode, first_BCHW: Tensor, *, frames: int, last_BCHW: Tensor | None = None) -> Tensor:
    """Return the condition (B, 20, F, H, W) of clips that begin with given pictures, and may end with others.

    Four channels say which frames are given, sixteen are the latents of these frames with mid-grey ones between.

    Args:
        encode: The VAE.
        first_BCHW: The first frames, in [-1, 1].
        frames: The clips' length in frames, 4 * k + 1.
        last_BCHW: The last frames, for models that take them.

    Raises:
        ValueError: There is a last frame but only one frame, or the length is another.
    """
    mask_MF = given_frames(frames, last=last_BCHW is not None)
    latents = encode(_between(first_BCHW, last_BCHW, frames=frames))
    return torch.cat([spread(mask_MF, latents), latents], dim=1)


def latents_image_and_end(encode: Encode, first_BCHW: Tensor, last_BCHW: Tensor, *, frames: int) -> Tensor:
    """Return the condition (B, 20, F, H, W) of clips for models that were not made for last pictures.

    As in the reference, the last picture is encoded by itself and given as a whole latent frame, the last four frames
    of ``frames``: all of them show it, so ``trim_tail=3`` leaves one.

    Raises:
        ValueError: The length is not 4 * k + 1 frames, or there is but one.
    """
    if frames == 1:
        raise ValueError("a single frame is the first and cannot be the last, too")
    begun = latents_image(encode, first_BCHW, frames=frames - _STEP)
    end = encode(last_BCHW[:, :, None])
    return torch.cat([begun, torch.cat([spread(torch.ones(_STEP, 1), end), end], dim=1)], dim=2)


def latents_control(encode: Encode, control_BCFHW: Tensor, *, frames: int) -> Tensor:
    """Return the latents (B, 16, F, H, W) of control videos in [-1, 1], each cut or held at its end to ``frames``."""
    missing = frames - control_BCFHW.shape[2]
    held = control_BCFHW[:, :, -1:].expand(-1, -1, max(missing, 0), -1, -1)
    return encode(torch.cat([control_BCFHW[:, :, :frames], held], dim=2))


def given_frames(frames: int, *, last: bool = False) -> Tensor:
    """Return the mask (M, F) of latent frames: 1 where a frame is given, the first one standing for four.

    Example:
        >>> from musubi.architectures.wan.conditions import given_frames
        >>> given_frames(9, last=True).T.tolist()
        [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    if frames < 1 or (frames - 1) % _STEP:
        raise ValueError(f"a clip has {_STEP} * k + 1 frames, got {frames}")
    if last and frames == 1:
        raise ValueError("a single frame is the first and cannot be the last, too")
    line = torch.zeros(_STEP - 1 + frames)
    line[:_STEP] = 1.0
    if last:
        line[-1] = 1.0
    return line.view(-1, _STEP).T


def spread(mask_MF: Tensor, latents_BCFHW: Tensor) -> Tensor:
    """Return a mask of latent frames (B, M, F, H, W) as large as latents, in their type."""
    batch, _, frames, height, width = latents_BCFHW.shape
    return mask_MF.to(latents_BCFHW)[None, :, :, None, None].expand(batch, -1, frames, height, width)


def _between(first_BCHW: Tensor, last_BCHW: Tensor | None, *, frames: int) -> Tensor:
    """Return videos of the given frames and, where none is given, of zeros: mid grey."""
    video = first_BCHW.new_zeros(first_BCHW[:, :, None].shape).repeat(1, 1, frames, 1, 1)
    video[:, :, 0] = first_BCHW
    if last_BCHW is not None:
        video[:, :, -1] = last_BCHW
    return video
