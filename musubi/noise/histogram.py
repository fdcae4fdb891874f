"""Where noise levels fall, and how much each counts: as a figure, and as text for consoles."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count
from musubi.core.figures import new_figure
from musubi.noise.timesteps import TimestepSampler
from musubi.noise.weighting import Weighting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CURVES, _COLUMNS = 6, 3
"""How many buckets a figure and a text show where the noise depends on the number of tokens."""

_LOGARITHMIC = 30.0
"""From this ratio of the largest to the smallest weight on, weights are drawn on a logarithmic scale."""

_TITLE = 110
"""The characters of a line over a figure."""


def timestep_figure(
    sampler: TimestepSampler, weighting: Weighting, *, tokens: Mapping[str, int], bins: int = 400
) -> Figure:
    """Return a figure of how often each noise level is drawn, for each bucket, over what each counts in the loss.

    The density is exact, not drawn from: 1 is that of the uniform distribution. Buckets for which it is the same are
    one curve; of many curves, six from the smallest to the largest are shown. ``tokens`` are the numbers of tokens of
    the buckets, by what they are called.

    Raises:
        ConfigError: There are no buckets or bins, a limit leaves no draws, or matplotlib is not installed.
    """
    curves = _curves(sampler, tokens=tokens, bins=bins, most=_CURVES)
    figure = new_figure(8.0, 5.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.suptitle(textwrap.fill(_described(sampler), _TITLE), fontsize=9)
    _draw_densities(above, curves, bins)
    _draw_limits(above, sampler)
    _draw_weights(below, weighting, bins)
    below.set_xlim(0, 1)
    below.set_xlabel("noise level (0 is the data, 1 is noise; a thousandth of the timestep)")
    return figure


def timestep_text(
    sampler: TimestepSampler, weighting: Weighting, *, tokens: Mapping[str, int], lines: int = 20, width: int = 100
) -> str:
    """Return the same in plain characters: the share of the draws in each range of noise levels, and its weight.

    Of many buckets, three from the smallest to the largest are shown; ``width`` is what a line has room for.

    Raises:
        ConfigError: There are no buckets or lines, or a limit leaves no draws.
    """
    import torch

    curves = _curves(sampler, tokens=tokens, bins=lines, most=_COLUMNS)
    weights = weighting.weights((torch.arange(lines) + 0.5) / lines).tolist()
    longest = max(max(curve.shares) for curve in curves)
    bar = max(6, (width - 24) // len(curves) - 9)
    rows = [f"{'noise level':13}" + "".join(f"{_cut(c.label, bar + 8):{bar + 9}}" for c in curves) + "loss weight"]
    for i, weight in enumerate(weights):
        cells = [f"{'#' * round(bar * c.shares[i] / longest):{bar}} {c.shares[i]:6.1%}  " for c in curves]
        rows.append(f"{i / lines:.3f}-{(i + 1) / lines:.3f}  {''.join(cells)}{weight:.4g}")
    return "\n".join([_described(sampler), *rows])


@attrs.frozen(kw_only=True)
class _Curve:
    """The shares of the draws in equal ranges of noise levels, for buckets for which they are the same."""

    label: str
    shares: tuple[float, ...]
    median: float


def _curves(sampler: TimestepSampler, *, tokens: Mapping[str, int], bins: int, most: int) -> list[_Curve]:
    """Return the different curves, from few tokens to many, ``most`` of them at the most."""
    _check(tokens, bins)
    sizes = sorted(set(tokens.values()))
    first, last = (_shares(sampler, size, bins) for size in (sizes[0], sizes[-1]))
    if max(abs(one - other) for one, other in zip(first, last, strict=True)) < 1e-9:
        label = next(iter(tokens)) if len(tokens) == 1 else f"all {len(tokens)} buckets"
        return [_Curve(label=label, shares=first, median=_median(sampler, sizes[0]))]
    return [
        _Curve(label=_label(tokens, size), shares=_shares(sampler, size, bins), median=_median(sampler, size))
        for size in _spread(sizes, most)
    ]


def _check(tokens: Mapping[str, int], bins: int) -> None:
    issues = [] if tokens else [Issue("tokens", "must name one bucket at least, got none")]
    wrong = count()(bins)
    if wrong is not None:
        issues.append(Issue("bins", wrong))
    issues += [Issue(f"tokens[{n!r}]", wrong) for n, t in tokens.items() if (wrong := count()(t)) is not None]
    if issues:
        raise ConfigError("no noise levels to show", issues)


def _shares(sampler: TimestepSampler, tokens: int, bins: int) -> tuple[float, ...]:
    import torch

    sampler.place(torch.tensor([0.5]), tokens=tokens)  # which says what is wrong where nothing can be drawn
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    return tuple(sampler.share(edges, tokens=tokens).diff().clamp(min=0).tolist())


def _median(sampler: TimestepSampler, tokens: int) -> float:
    import torch

    return float(sampler.place(torch.tensor([0.5]), tokens=tokens))


def _label(tokens: Mapping[str, int], size: int) -> str:
    """Return what buckets of one size are called: ``832x480 and 2 more, 1,560 tokens``."""
    names = [name for name, number in tokens.items() if number == size]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}, {size:,} tokens"


def _spread(sizes: Sequence[int], most: int) -> Iterator[int]:
    """Yield as many as may be shown, from the first to the last."""
    shown = min(most, len(sizes))
    yield from (sizes[round(i * (len(sizes) - 1) / max(1, shown - 1))] for i in range(shown))


def _described(value: object) -> str:
    """Write a sampler as one would type it, without the fields that have their defaults."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_described, cast(tuple[object, ...], value)))})"
    if not isinstance(value, TimestepSampler):
        return f"{value:.4g}" if isinstance(value, float) else repr(value)
    fields = [
        (a.name, getattr(value, a.name)) for a in attrs.fields(type(value)) if getattr(value, a.name) != a.default
    ]
    return f"{type(value).__name__}({', '.join(f'{name}={_described(given)}' for name, given in fields)})"


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 3]}..."


def _draw_densities(axes: Axes, curves: Sequence[_Curve], bins: int) -> None:
    from matplotlib import colormaps

    edges = [i / bins for i in range(bins + 1)]
    for i, curve in enumerate(curves):
        color = "tab:blue" if len(curves) == 1 else colormaps["viridis"](0.8 * i / (len(curves) - 1))
        density = [share * bins for share in curve.shares]
        axes.stairs(density, edges, color=color, alpha=0.15 if len(curves) == 1 else 0.06, fill=True)
        axes.stairs(density, edges, color=color, linewidth=1.8, label=f"{curve.label}: median {curve.median:.3f}")
    axes.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("density of the draws (uniform: 1)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")


def _draw_limits(axes: Axes, sampler: TimestepSampler) -> None:
    for limit in {sampler.low, sampler.high} - {0.0, 1.0}:
        axes.axvline(limit, color="0.3", linewidth=0.9, linestyle="--")


def _draw_weights(axes: Axes, weighting: Weighting, bins: int) -> None:
    import torch

    levels = (torch.arange(bins) + 0.5) / bins
    weights = weighting.weights(levels).tolist()
    axes.plot(levels.tolist(), weights, color="0.25", linewidth=1.4)
    if min(weights) > 0 and max(weights) / min(weights) > _LOGARITHMIC:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.15 * max(weights))
    axes.set_ylabel("loss weight")
    axes.spines[["top", "right"]].set_visible(False)
