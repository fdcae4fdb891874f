"""One-frame training of FramePack: one picture made from others, each at its own place in time.

Shape suffixes: C channels, F frames (one), H height, W width. Leading dimensions, such as a batch, may come before C.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np
from numpy.typing import NDArray

from musubi.core.errors import DataError, Issue
from musubi.core.fields import count, each, field
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from musubi.architectures.framepack.sections import Section

_STRIDE = 8
"""Pixels to a side of a latent cell."""


@attrs.frozen(kw_only=True)
class OneFrame(Spec):
    """Where in time the picture to make lies, and where the control pictures and the rest of a section do.

    Args:
        target: The position of the picture to make, in latent frames.
        controls: The position of each control picture.
        window: Latent frames of a section; what comes after them lies behind that many.
        post: Whether a blank frame follows the control pictures, right behind the section.
        history_2x: Whether two blank frames of history, each for two, are there.
        history_4x: Whether sixteen blank frames of history, each for four, are there.

    Example:
        >>> from musubi.architectures.framepack.one_frame import OneFrame
        >>> OneFrame(target=9).clean_positions
        (0, 10)
    """

    target: int = field(check=count(0))
    controls: tuple[int, ...] = field(default=(0,), check=each(count(0)))
    window: int = field(default=9, check=count())
    post: bool = True
    history_2x: bool = True
    history_4x: bool = True

    def problems(self) -> Iterable[Issue]:
        """Yield what cannot be laid out."""
        if not self.controls:
            yield Issue("controls", "there is no position", "controls=(0,) is the usual one")

    @property
    def clean_positions(self) -> tuple[int, ...]:
        """The positions of the control pictures, and of the blank frame behind the section if there is one."""
        return (*self.controls, *([self.window + 1] if self.post else []))


def one_frame_section(layout: OneFrame, target_CFHW: Tensor, controls: Sequence[Tensor]) -> Section:
    """Return the section that one picture and its control pictures, each encoded alone, make.

    Raises:
        DataError: There are more or fewer control pictures than positions.
    """
    import torch

    from musubi.architectures.framepack.sections import Section

    if len(controls) != len(layout.controls):
        message = f"{len(controls)} given, {len(layout.controls)} positions"
        raise DataError("cannot place the control pictures", [Issue("controls", message, "give one position for each")])
    blank = [torch.zeros_like(target_CFHW)] if layout.post else []
    behind = layout.window + 2
    return Section(
        latents=target_CFHW,
        latents_clean=torch.cat([*controls, *blank], dim=-3),
        latent_indices=torch.tensor([layout.target]),
        clean_latent_indices=torch.tensor(layout.clean_positions),
        clean_latent_2x_indices=torch.arange(behind, behind + 2) if layout.history_2x else None,
        clean_latent_4x_indices=torch.arange(behind + 2, behind + 18) if layout.history_4x else None,
    )


def faded(latents_CFHW: Tensor, alpha_HW: NDArray[np.uint8]) -> Tensor:
    """Return a control picture's latents faded by its alpha channel, opaque 255, of the picture's size in pixels.

    The channel is shrunk by Lanczos to the size of the latents, as the reference does.
    """
    import torch
    from PIL import Image

    height, width = alpha_HW.shape
    shrunk = Image.fromarray(alpha_HW).resize((width // _STRIDE, height // _STRIDE), Image.Resampling.LANCZOS)
    alpha = torch.from_numpy(np.array(shrunk)).to(latents_CFHW.device, torch.float32) / 255
    return (latents_CFHW * alpha).to(latents_CFHW.dtype)
