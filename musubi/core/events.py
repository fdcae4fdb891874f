"""What long work tells while it runs: frozen, typed values."""

from __future__ import annotations

from collections.abc import Callable
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
class StepEnded(Event):
    """One optimiser step was taken; ``step`` counts from 1, ``epoch`` from 0, ``loss`` is the mean over its batches."""

    step: int
    total: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    sigma: tuple[float, ...]
    items: tuple[str, ...]
    bucket: str


@attrs.frozen(kw_only=True)
class Saved(Event):
    """A file or a state directory was written completely."""

    step: int
    path: Path
    what: Literal["lora", "state"]


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
