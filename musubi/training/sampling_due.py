"""When a run draws samples."""

from __future__ import annotations

from collections.abc import Iterable


def sampling_due(
    step: int, epochs: Iterable[int] = (), *, at_first: bool = True, every: int | None, every_epochs: int | None
) -> bool:
    """Return whether samples are drawn now: once, however many reasons there are.

    Args:
        step: How many optimiser steps the run has taken; 0 is before the first.
        epochs: The epochs, counted from 1, that ended with this step.
        at_first: Whether to draw before the first step.
        every: Draw after every so many steps; None: no step is a reason.
        every_epochs: Draw after every so many epochs; None: no epoch is a reason.

    Example:
        >>> from musubi.training.sampling_due import sampling_due
        >>> [step for step in range(6) if sampling_due(step, every=2, every_epochs=None)]
        [0, 2, 4]
    """
    if step == 0:
        return at_first
    at_step = every is not None and step % every == 0
    return at_step or (every_epochs is not None and any(epoch % every_epochs == 0 for epoch in epochs))
