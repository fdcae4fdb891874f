"""One-frame training of Wan's image models: one picture made from one or two others, each at its own place in time.

Shape suffixes: B batch, C channels, F frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import DataError, Issue
from musubi.core.fields import count, each, field
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from musubi.architectures.wan.conditions import Encode

_POSITIONS = 1024
"""Places in time that the transformer's rotary tables have."""


@attrs.frozen(kw_only=True)
class OneFrame(Spec):
    """Where in time the picture to make lies, and where each of the control pictures it is made from.

    The reference gives control pictures, as they come, to the control positions in ascending order. Here the first
    picture keeps the first position, whatever it is.

    Args:
        target: The position of the picture to make, in latent frames.
        controls: The position of each control picture; the models were made for one or two.

    Example:
        >>> from musubi import OneFrame
        >>> OneFrame(target=1, controls=(2, 0)).positions
        (0, 1, 2)
        >>> OneFrame(target=1, controls=(2, 0)).slots
        (1, None, 0)
    """

    target: int = field(check=count(0))
    controls: tuple[int, ...] = field(default=(0,), check=each(count(0)))

    def problems(self) -> Iterable[Issue]:
        """Yield what the models cannot do."""
        if not 1 <= len(self.controls) <= 2:
            yield Issue("controls", f"must be one or two positions, got {len(self.controls)}")
        if max(self.positions) >= _POSITIONS:
            yield Issue("", f"positions end at {_POSITIONS - 1}, got {max(self.positions)}")
        if self.target in self.controls:
            hint = "give the picture to make a position of its own"
            yield Issue("target", f"{self.target} is the position of a control picture", hint)

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions of all frames in ascending order: the order in which they lie in the latents."""
        return tuple(sorted((self.target, *self.controls)))

    @property
    def slots(self) -> tuple[int | None, ...]:
        """Which control picture lies at each of ``positions``, by number; None is the picture to make."""
        placed: list[tuple[int, int | None]] = [(self.target, None), *((p, n) for n, p in enumerate(self.controls))]
        return tuple(number for _, number in sorted(placed, key=lambda place: place[0]))


@attrs.frozen(kw_only=True, eq=False)
class OneFrameLatents:
    """What is cached of items: ``latents`` (B, 16, F, H, W), ``latents_image`` (B, 20, F, H, W), ``f_indices`` (F)."""

    latents: Tensor
    latents_image: Tensor
    f_indices: Tensor


def encode_one_frame(
    encode: Encode, layout: OneFrame, target_BCHW: Tensor, controls: Sequence[Tensor]
) -> OneFrameLatents:
    """Encode pictures in [-1, 1] of one size, every one as a video of its own, and lay them out in time.

    The condition shows the control pictures, masked 1, and mid grey, masked 0, in the place of the one to make.

    Raises:
        DataError: There are more or fewer control pictures than positions.
    """
    import torch

    from musubi.architectures.wan.conditions import spread

    if len(controls) != len(layout.controls):
        message = f"{len(controls)} given, {len(layout.controls)} positions"
        raise DataError("cannot place the control pictures", [Issue("controls", message, "give one position for each")])
    grey_BCHW = torch.zeros_like(target_BCHW[:1])
    together = torch.cat([target_BCHW, *controls, grey_BCHW])
    *pictures, grey = encode(together[:, :, None]).split([len(target_BCHW)] * (1 + len(controls)) + [1])
    grey = grey.expand_as(pictures[0])
    slots = layout.slots
    latents = torch.cat([pictures[0 if slot is None else 1 + slot] for slot in slots], dim=2)
    shown = torch.cat([grey if slot is None else pictures[1 + slot] for slot in slots], dim=2)
    mask_MF = torch.tensor([[float(slot is not None) for slot in slots]]).expand(4, -1)
    return OneFrameLatents(
        latents=latents,
        latents_image=torch.cat([spread(mask_MF, shown), shown], dim=1),
        f_indices=torch.tensor(layout.positions, dtype=torch.int32),
    )
