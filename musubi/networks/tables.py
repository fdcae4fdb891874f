"""Tables of strings, for terminals and for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_CELL = "text-align:left;padding:2px 10px 2px 0;vertical-align:top"


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equal length as aligned columns, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def html_table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Return an escaped table under a title; the first row is its head."""
    head, *body = rows
    lines = [_row(head, "th"), *(_row(row, "td") for row in body)]
    table = f'<table style="border-collapse:collapse;margin-top:4px">{"".join(lines)}</table>'
    return f"<div><b>{escape(title)}</b>{table}</div>"


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f'<{tag} style="{_CELL}">{escape(cell)}</{tag}>' for cell in cells) + "</tr>"
