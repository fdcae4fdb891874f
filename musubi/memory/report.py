"""A plan as text, as a card for notebooks and as a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING

from musubi.core.notebook import card
from musubi.memory.budget import size
from musubi.memory.hardware import GIB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from musubi.memory.need import Balance, Row
    from musubi.memory.plan import Plan

_COLOURS: Mapping[str, str] = MappingProxyType(
    {
        "weights": "#4c78a8",
        "trained": "#72b7b2",
        "conditions": "#eeca3b",
        "kept for backward": "#f58518",
        "working": "#e45756",
        "slack": "#bab0ac",
    }
)
_WIDE = 360
"""Pixels of the longest bar."""


def text(plan: Plan) -> str:
    """Return a plan as aligned lines."""
    timed = any(row.balance is not None for row in plan.rows)
    head = ["bucket", "tokens", "weights", "trained", "activations", "slack", "total"]
    head += [plan.timed, "swap costs"] if timed else []
    head += ["fits"] if plan.budget is not None else []
    table = [head, *(_cells(row, plan, timed=timed) for row in plan.rows)]
    lines = [plan.title, "", *_aligned(table), ""]
    lines += [f"{name}: {value}" for name, value in _facts(plan)]
    return "\n".join([*lines, "", "assumed:", *(f"  - {told}" for told in plan.assumptions)])


def html(plan: Plan) -> str:
    """Return a plan as a card: a bar of parts for every bucket against the device's memory, then all else."""
    longest = max((plan.budget or 0, *(row.total for row in plan.rows)), default=0)
    bars = "".join(_bar(row, plan.budget, longest) for row in plan.rows)
    legend = " ".join(
        f'<span style="white-space:nowrap"><span style="background:{colour}">&nbsp;&nbsp;&nbsp;</span> {name}</span>'
        for name, colour in _COLOURS.items()
    )
    facts = card(plan.title, [*_facts(plan), ("assumed", "; ".join(plan.assumptions))])
    return f'{facts}<table style="border-collapse:collapse">{bars}</table><div>{legend}</div>'


def figure(plan: Plan) -> Figure:
    """Return a plan as a figure of horizontal bars; raises ``ConfigError`` without matplotlib."""
    from musubi.core.figures import new_figure

    drawn = new_figure(8.0, 1.2 + 0.4 * max(1, len(plan.rows)))
    axes = drawn.subplots()
    names, left = [row.bucket for row in plan.rows], [0.0] * len(plan.rows)
    for part, colour in _COLOURS.items():
        widths = [dict(row.parts)[part] / GIB for row in plan.rows]
        axes.barh(names, widths, left=left, color=colour, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    if plan.budget is not None:
        axes.axvline(plan.budget / GIB, color="0.2", linestyle="--", linewidth=1.2)
    axes.set_xlabel("GiB on the device")
    axes.set_title(plan.title, fontsize=9)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=3)
    return drawn


def _facts(plan: Plan) -> Iterable[tuple[str, str]]:
    if plan.hardware is not None:
        yield "planned for", f"{plan.hardware.name}, {size(plan.hardware.memory)}"
    if plan.chosen:
        yield "memory policies chosen", plan.line
    yield from (("does not fit" if i == 0 else "instead", line) for i, line in enumerate(plan.advice))
    yield from ((other.name, f"{size(other.device)} on the device: {other.what}") for other in plan.others)
    yield "host RAM", f"{size(plan.host)} at most, while loading; {size(plan.running)} while running"
    yield "pinned RAM", f"{size(plan.pinned)} while running"
    yield from _swapping(plan)
    yield "disk", _disk(plan)


def _swapping(plan: Plan) -> Iterable[tuple[str, str]]:
    rows = [(row, row.balance) for row in plan.rows if row.balance is not None and row.balance.copying]
    if rows:
        worst, balance = min(rows, key=lambda found: found[1].free)
        yield (
            "copying",
            f"{_seconds(balance.copying)} a pass against {_seconds(balance.forward)} of computing forward in "
            f"{worst.bucket}: {balance.free:.0%} of it costs no time",
        )


def _disk(plan: Plan) -> str:
    places = plan.places
    if not places.file:
        return "nothing"
    parts = [_times(places.files, "file", places.file), _times(places.states, "state", places.state)]
    parts += [f"cache {size(places.cache)}"] if places.cache else []
    parts += [f"samples about {size(places.samples)}"] if places.samples else []
    return f"{size(places.total)} in all: {', '.join(parts)}"


def _times(count: int, what: str, each: int) -> str:
    return f"{count} {what}{'' if count == 1 else 's'} of {size(each)}"


def _cells(row: Row, plan: Plan, *, timed: bool) -> list[str]:
    values = (row.weights, row.trained, row.activations, row.slack, row.total)
    cells = [row.bucket, f"{row.tokens:,}", *map(size, values)]
    cells += _times_of(row.balance) if timed else []
    return [*cells, "yes" if row.total <= plan.budget else "NO"] if plan.budget is not None else cells


def _times_of(balance: Balance | None) -> list[str]:
    return ["", ""] if balance is None else [_seconds(balance.seconds), f"{balance.slowdown:+.0%}"]


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.1 else f"{1000 * value:.3g} ms"


def _bar(row: Row, budget: int | None, longest: int) -> str:
    pieces = "".join(
        f'<span title="{escape(f"{name} {size(value)}")}" style="display:inline-block;height:12px;'
        f'width:{value * _WIDE // max(1, longest)}px;background:{_COLOURS[name]}"></span>'
        for name, value in row.parts
    )
    over = "" if budget is None or row.total <= budget else ' <b style="color:#c00">does not fit</b>'
    limit = "" if budget is None else f"border-right:2px solid #333;width:{budget * _WIDE // max(1, longest)}px;"
    cell = '<td style="padding:2px 8px 2px 0;text-align:left">'
    frame = f'<div style="{limit}white-space:nowrap;line-height:0">{pieces}</div>'
    return f"<tr>{cell}{escape(row.bucket)}</td>{cell}{frame}</td>{cell}{size(row.total)}{over}</td></tr>"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    ]
