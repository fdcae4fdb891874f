"""Small escaped tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_CELL = "text-align:left;padding:2px 10px 2px 0;vertical-align:top"


def card(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a two-column HTML table under a title; every text is escaped, nothing is read from disk."""
    body = "".join(
        f'<tr><th style="{_CELL};font-weight:500">{escape(name)}</th><td style="{_CELL}">{escape(str(value))}</td></tr>'
        for name, value in rows
    )
    return f'<div><b>{escape(title)}</b><table style="border-collapse:collapse;margin-top:4px">{body}</table></div>'
