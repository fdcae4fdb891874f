"""Curves of a run as matplotlib figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from musubi.core.events import Band, Validated
from musubi.core.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RAW, _LOSS, _VALIDATION, _BEST, _RATE = "0.78", "tab:blue", "tab:green", "tab:red", "tab:orange"


def loss_figure(
    losses: Sequence[float],
    rates: Sequence[float] | Mapping[str, Sequence[float]],
    validations: Sequence[Validated] = (),
) -> Figure:
    """Return the loss over steps, raw and smoothed, with validation losses in it and learning rates beneath.

    A third picture has the validation losses of each band of noise levels. Nothing is shown or saved.

    Args:
        losses: One for each step; what is not finite is left out.
        rates: The learning rate at each step, or one curve for each parameter group by name.
        validations: The measurements on held-out items; the best one is marked.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    bands = _bands(validations)
    figure = new_figure(8.0, 7.0 if bands else 5.0)
    axes: list[Axes] = list(
        figure.subplots(3 if bands else 2, 1, sharex=True, height_ratios=(3, 2, 1) if bands else (3, 1))
    )
    _draw_losses(axes[0], losses, validations)
    if bands:
        _draw_bands(axes[1], bands)
    _draw_rates(axes[-1], rates if isinstance(rates, Mapping) else {"": rates})
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.01)
    axes[-1].set_xlabel("step")
    axes[-1].locator_params(axis="x", integer=True)
    return figure


def smoothed(values: Sequence[float], *, half_life: float = 10.0) -> list[float]:
    """Return the exponential moving average, corrected at the start so that it has no bias towards the first value.

    A value that is not finite leaves the average as it was.
    """
    decay = 0.5 ** (1 / half_life)
    total, weight, means = 0.0, 0.0, list[float]()
    for value in values:
        if math.isfinite(value):
            total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        means.append(total / weight if weight else math.nan)
    return means


def _draw_losses(panel: Axes, losses: Sequence[float], validations: Sequence[Validated]) -> None:
    steps = range(1, len(losses) + 1)
    panel.plot(steps, losses, color=_RAW, linewidth=0.8, label="each step")
    half_life = max(3.0, len(losses) / 40)
    panel.plot(steps, smoothed(losses, half_life=half_life), color=_LOSS, linewidth=1.8, label="smoothed")
    if validations:
        where, what = [one.step for one in validations], [one.loss for one in validations]
        panel.plot(where, what, color=_VALIDATION, marker="o", markersize=3.5, linewidth=1.2, label="validation")
        best = min(validations, key=lambda one: (not math.isfinite(one.loss), one.loss, one.step))
        told = f"best, step {best.step}: {best.loss:.4f}"
        panel.plot([best.step], [best.loss], color=_BEST, marker="*", markersize=12, linestyle="", label=told)
    panel.set_ylabel("loss")
    panel.legend(frameon=False, fontsize="small")


def _draw_bands(panel: Axes, bands: Mapping[tuple[float, float], Sequence[tuple[int, float]]]) -> None:
    from matplotlib import colormaps

    shades: Any = colormaps["viridis"]
    for index, ((low, high), points) in enumerate(sorted(bands.items())):
        colour = shades(0.9 * index / max(1, len(bands) - 1))
        steps, losses = zip(*points, strict=True)
        panel.plot(
            steps, losses, color=colour, marker="o", markersize=3, linewidth=1.2, label=f"{low:.2f} to {high:.2f}"
        )
    panel.set_ylabel("validation loss")
    panel.legend(frameon=False, fontsize="small", title="noise levels", title_fontsize="small", ncols=2)


def _draw_rates(panel: Axes, rates: Mapping[str, Sequence[float]]) -> None:
    for name, curve in rates.items():
        colour = None if name else _RATE
        panel.plot(range(1, len(curve) + 1), curve, color=colour, linewidth=1.4, label=name)
    panel.set_ylabel("learning rate")
    panel.set_ylim(bottom=0)
    if any(rates):
        panel.legend(frameon=False, fontsize="small")


def _bands(validations: Sequence[Validated]) -> dict[tuple[float, float], list[tuple[int, float]]]:
    """Return (step, loss) of every measurement by band of noise levels; nothing where there is one band only."""
    found: dict[tuple[float, float], list[tuple[int, float]]] = {}
    for one in validations:
        for band in one.bands:
            found.setdefault(_limits(band), []).append((one.step, band.loss))
    return found if len(found) > 1 else {}


def _limits(band: Band) -> tuple[float, float]:
    return band.low, band.high
