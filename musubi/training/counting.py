"""Steps and epochs: how many batches an optimiser step takes, and which epochs it brings to an end.

The batches of all epochs form one endless sequence. A step takes ``accumulate`` of them on every process and runs on
over the end of an epoch, so every step sees equally many. The reference cuts the last step of an epoch short instead:
its steps differ in size, and an epoch has more of them.
"""

from __future__ import annotations


def total_steps(epochs: int, batches: int, *, accumulate: int = 1, processes: int = 1) -> int:
    """Return the optimiser steps that see every batch of ``epochs`` epochs; the last may reach beyond them.

    Args:
        epochs: How often to see everything.
        batches: In an epoch, those of all processes together: ``len(loader)``.
        accumulate: Batches of each process in a step.
        processes: How many there are.

    Example:
        >>> from musubi.training.counting import total_steps
        >>> total_steps(3, 7, accumulate=2)
        11
    """
    return -(-epochs * batches // (accumulate * processes))


def epochs_completed(step: int, batches: int, *, accumulate: int = 1, processes: int = 1) -> int:
    """Return how many epochs have had their last batch once ``step`` steps are taken."""
    return step * accumulate * processes // batches


def epoch_ends(step: int, batches: int, *, accumulate: int = 1, processes: int = 1) -> range:
    """Return the epochs, counted from 1, whose last batch the step ``step`` (from 1) took.

    There is one at most, unless a step takes more batches than an epoch has.

    Example:
        >>> from musubi.training.counting import epoch_ends
        >>> [list(epoch_ends(step, 5, accumulate=2)) for step in (1, 2, 3, 4, 5)]
        [[], [], [1], [], [2]]
    """
    before = epochs_completed(step - 1, batches, accumulate=accumulate, processes=processes)
    return range(before + 1, epochs_completed(step, batches, accumulate=accumulate, processes=processes) + 1)


def due_epoch(every: int | None, ended: range) -> int | None:
    """Return the newest of the epochs just ended for which something is due every ``every`` epochs, or None."""
    return max((epoch for epoch in ended if every is not None and epoch % every == 0), default=None)
