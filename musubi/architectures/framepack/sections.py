"""Clips to sections: what FramePack learns to predict, from which clean latents, and where all of these lie in time.

Shape suffixes: C channels, F frames, H height, W width. Leading dimensions, such as a batch, may come before C.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from musubi.core.errors import Issue

WINDOW = 9
"""Latent frames that the published models predict at a time."""

_STEP = 4
"""Frames to a latent frame, the first one excepted."""

_HISTORY = (1, 2, 16)
"""Clean latent frames beside the first one: as they are, in pairs, in fours; the nearest ones first."""


@attrs.frozen(kw_only=True, eq=False)
class Section:
    """What is trained on at once, named as in caches: latents to predict, clean ones around them, positions of each.

    Without ``latents_clean_2x`` or ``latents_clean_4x`` there are zeros at these positions, without positions nothing.

    Args:
        latents: Frames to predict, (C, F, H, W).
        latents_clean: The clip's first frame and the nearest one of the history, (C, 2, H, W).
        latents_clean_2x: The next two frames of the history.
        latents_clean_4x: The next sixteen frames of the history.
        latent_indices: int64 positions of ``latents``, (F); those below are of the other frames.
        clean_latent_indices: Positions of ``latents_clean``.
        clean_latent_2x_indices: Positions of ``latents_clean_2x``.
        clean_latent_4x_indices: Positions of ``latents_clean_4x``.
    """

    latents: Tensor
    latents_clean: Tensor
    latents_clean_2x: Tensor | None = None
    latents_clean_4x: Tensor | None = None
    latent_indices: Tensor
    clean_latent_indices: Tensor
    clean_latent_2x_indices: Tensor | None = None
    clean_latent_4x_indices: Tensor | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that there are, by name."""
        named: dict[str, Tensor | None] = {a.name: getattr(self, a.name) for a in attrs.fields(type(self))}
        return {name: tensor for name, tensor in named.items() if tensor is not None}


def section_count(frames: int, *, window: int = WINDOW) -> int:
    """Return how many whole sections a clip of so many frames has.

    Example:
        >>> from musubi.architectures.framepack.sections import section_count
        >>> [section_count(frames) for frames in (33, 37, 77)]
        [0, 1, 2]
    """
    return (frames - 1) // _STEP // window


def used_frames(frames: int, *, window: int = WINDOW) -> int:
    """Return how many frames the whole sections of a clip are made of; those beyond need not be encoded."""
    return section_count(frames, window=window) * window * _STEP + 1


def frame_issues(frames: int, path: str = "frames", *, window: int = WINDOW) -> list[Issue]:
    """Say that a clip is too short for a section."""
    needed = window * _STEP + 1
    if frames >= needed:
        return []
    return [Issue(path, f"a section of {window} latent frames takes {needed} frames, got {frames}")]


def inverted_sections(latents_CFHW: Tensor, *, window: int = WINDOW) -> list[Section]:
    """Return the sections of a clip, earliest first, for the model that predicts the last one first.

    The history of a section is what follows it, so that errors cannot add up (Zhang and Agrawala 2025, inverted
    anti-drifting); beyond the clip's end there are zeros. Frames after the last whole section are left out.

    Raises:
        ValueError: The clip is too short for one section.
    """
    count = _sections_in(latents_CFHW, window)
    whole = _frames(latents_CFHW, 0, 1 + count * window)
    padded = F.pad(whole, (0, 0, 0, 0, 0, sum(_HISTORY)))
    sections: list[Section] = []
    for number, gap in enumerate(reversed(gaps(count))):
        start = 1 + number * window
        first, _, at_target, post, at_2x, at_4x = _positions([1, gap * window, window, *_HISTORY])
        near, clean_2x, clean_4x = _frames(padded, start + window, sum(_HISTORY)).split(_HISTORY, dim=-3)
        target = _frames(whole, start, window)
        clean = [torch.cat([_frames(whole, 0, 1), near], dim=-3), clean_2x, clean_4x]
        sections.append(_section(target, clean, [at_target, torch.cat([first, post]), at_2x, at_4x]))
    return sections


def forward_sections(latents_CFHW: Tensor, *, window: int = WINDOW) -> list[Section]:
    """Return the sections of a clip, earliest first, for the model that predicts them in this order (FramePack-F1).

    The history of a section is what precedes it; before the clip's beginning there are zeros. Frames after the last
    whole section are left out.

    Raises:
        ValueError: The clip is too short for one section.
    """
    count = _sections_in(latents_CFHW, window)
    padded = F.pad(latents_CFHW, (0, 0, 0, 0, sum(_HISTORY), 0))
    before = _HISTORY[::-1]
    first, at_4x, at_2x, post, at_target = _positions([1, *before, window])
    sections: list[Section] = []
    for number in range(count):
        start = 1 + number * window
        clean_4x, clean_2x, near = _frames(padded, start, sum(before)).split(before, dim=-3)
        target = _frames(latents_CFHW, start, window)
        clean = [torch.cat([_frames(latents_CFHW, 0, 1), near], dim=-3), clean_2x, clean_4x]
        sections.append(_section(target, clean, [at_target, torch.cat([first, post]), at_2x, at_4x]))
    return sections


def _section(target: Tensor, clean: Sequence[Tensor], at: Sequence[Tensor]) -> Section:
    """Return a section of its target, its history at full size, half and a quarter, and the places of all four."""
    near, clean_2x, clean_4x = clean
    at_target, at_near, at_2x, at_4x = at
    return Section(
        latents=target,
        latents_clean=near,
        latents_clean_2x=clean_2x,
        latents_clean_4x=clean_4x,
        latent_indices=at_target,
        clean_latent_indices=at_near,
        clean_latent_2x_indices=at_2x,
        clean_latent_4x_indices=at_4x,
    )


def gaps(count: int) -> tuple[int, ...]:
    """Return how many blank sections lie between the first frame and each section, in the order of prediction.

    Of more than four sections all but the outer ones are predicted as if two sections were missing, so that one model
    does for clips of any length.
    """
    if count <= 4:
        return tuple(reversed(range(count)))
    return (3, *[2] * (count - 3), 1, 0)


def _sections_in(latents_CFHW: Tensor, window: int) -> int:
    count = (latents_CFHW.shape[-3] - 1) // window
    if count < 1:
        raise ValueError(f"a section takes {window + 1} latent frames, got {latents_CFHW.shape[-3]}")
    return count


def _frames(latents_CFHW: Tensor, start: int, length: int) -> Tensor:
    return latents_CFHW.narrow(-3, start, length)


def _positions(lengths: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the positions 0, 1, 2, ... cut into runs."""
    return tuple(torch.arange(sum(lengths)).split(list(lengths)))
