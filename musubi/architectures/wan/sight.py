"""What the transformer of each task sees beside noise and text."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from musubi.architectures.wan.one_frame import OneFrame


@attrs.frozen(kw_only=True)
class Sight:
    """What a task's transformer sees beside noise and text.

    ``image`` is the first frame laid out in 20 channels, ``last`` whether the last frame is there in training, too;
    ``start`` is the first frame as it is, of a model that takes it without a mask; ``control`` a clip to follow;
    ``clip`` CLIP's features of the first frame, and with ``last`` of the last one.
    """

    image: bool = False
    last: bool = False
    start: bool = False
    control: bool = False
    clip: bool = False
    one_frame: OneFrame | None = None

    @property
    def identity(self) -> str:
        """What tells the caches of tasks that look at different things apart; empty where there is text alone."""
        seen = [name for name in ("image", "last", "control") if getattr(self, name)]
        if self.one_frame is not None:
            seen.append(f"{self.one_frame.target} of {' '.join(map(str, self.one_frame.controls))}")
        return " ".join(seen)


_SIGHTS: Mapping[str, Sight] = MappingProxyType(
    {
        "i2v_14b": Sight(image=True, clip=True),
        "flf2v_14b": Sight(image=True, last=True, clip=True),
        "t2v_1_3b_control": Sight(control=True),
        "t2v_14b_control": Sight(control=True),
        "i2v_14b_control": Sight(image=True, control=True, clip=True),
        "i2v_a14b": Sight(image=True),
        "ti2v_5b": Sight(start=True),
    }
)


def sight_of(task: str, one_frame: OneFrame | None = None) -> Sight:
    """Return what a task's transformer sees; of text to video and to pictures nothing.

    Example:
        >>> from musubi.architectures.wan.sight import sight_of
        >>> sight_of("flf2v_14b").identity
        'image last'
    """
    return attrs.evolve(_SIGHTS.get(task, Sight()), one_frame=one_frame)
