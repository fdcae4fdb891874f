"""What long work tells while it runs: frozen, typed values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

import attrs

Reason = Literal["completed", "cancelled", "failed"]


class Media(Protocol):
    """A picture or a clip that can be kept."""

    def save(self, path: Path | str) -> Path:
        """Write the file and return its path."""
        ...


@attrs.frozen(kw_only=True)
class Event:
    """The root of all events."""


@attrs.frozen(kw_only=True)
class Progress(Event):
    """``done`` of ``total`` units of a named piece of work are finished."""

    task: str
    done: int
    total: int
    detail: str = ""


@attrs.frozen(kw_only=True)
class Warned(Event):
    """Something the user should know but that does not stop the work."""

    message: str


@attrs.frozen(kw_only=True)
class Started(Event):
    """A run is about to take its first step, counting from ``step``."""

    step: int
    total: int
    items: int
    trainable: int


@attrs.frozen(kw_only=True)
class WeightNorms:
    """What a limit on the norms of the adapters' deltas did after a step: how many it scaled, and the norms since."""

    scaled: int
    mean: float
    largest: float


@attrs.frozen(kw_only=True)
class StepEnded(Event):
    """One optimiser step was taken; ``step`` counts from 1, ``epoch`` from 0, ``loss`` is the mean over its batches.

    ``lr`` is the first parameter group's rate, ``rates`` every group's by name. ``skipped`` steps changed nothing,
    because a loss or a gradient was not finite. With several processes ``loss`` is the mean over all; ``sigma``,
    ``items`` and ``bucket`` are this process's.
    """

    step: int
    total: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    sigma: tuple[float, ...]
    items: tuple[str, ...]
    bucket: str
    rates: Mapping[str, float] = attrs.field(factory=dict)
    norms: WeightNorms | None = None
    skipped: bool = False


@attrs.frozen(kw_only=True)
class Band:
    """The validation loss of the noise levels from ``low`` to ``high``."""

    low: float
    high: float
    loss: float


@attrs.frozen(kw_only=True)
class Validated(Event):
    """The loss on held-out items was measured, on noise and noise levels that are the same every time.

    ``best`` says whether it is the lowest of the run so far.
    """

    step: int
    loss: float
    bands: tuple[Band, ...]
    best: bool


@attrs.frozen(kw_only=True)
class RolledBack(Event):
    """A loss or a gradient was not finite at ``step``, and the run went back to its state at ``to``."""

    step: int
    to: int


@attrs.frozen(kw_only=True)
class Removed(Event):
    """An older file or state directory was removed, as the number to keep says."""

    path: Path


@attrs.frozen(kw_only=True)
class Saved(Event):
    """A file or a state directory was written completely."""

    step: int
    path: Path
    what: Literal["lora", "model", "best", "state"]


@attrs.frozen(kw_only=True)
class Sampled(Event):
    """Samples were drawn during training."""

    step: int
    images: tuple[Media, ...]
    paths: tuple[Path, ...] = ()


@attrs.frozen(kw_only=True)
class Finished(Event):
    """The run is over and everything is saved; ``failed`` is heard by callbacks only, before the error goes on."""

    step: int
    reason: Reason


Callback = Callable[[Event], None]
"""Anything that wants to hear events; an error it raises stops the work."""
