"""Curves of a run as matplotlib figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from musubi.core.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_figure(losses: Sequence[float], rates: Sequence[float]) -> Figure:
    """Return the loss over steps, raw and smoothed, with the learning rate beneath; nothing is shown or saved.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure()
    steps = range(1, len(losses) + 1)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot(steps, losses, color="0.75", linewidth=0.8, label="each step")
    above.plot(steps, smoothed(losses), color="tab:blue", linewidth=1.8, label="smoothed")
    above.set_ylabel("loss")
    above.legend(frameon=False)
    below.plot(steps, rates, color="tab:orange")
    below.set_ylabel("learning rate")
    below.set_xlabel("step")
    below.locator_params(axis="x", integer=True)
    return figure


def smoothed(values: Sequence[float], *, half_life: float = 10.0) -> list[float]:
    """Return the exponential moving average, corrected at the start so that it has no bias towards the first value."""
    decay = 0.5 ** (1 / half_life)
    total, weight, means = 0.0, 0.0, list[float]()
    for value in values:
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        means.append(total / weight)
    return means
