"""How reports word counts, shares and lists that may be long."""

from __future__ import annotations

from collections.abc import Sequence

from musubi.core.errors import printable


def counted(number: int, noun: str) -> str:
    """Return ``1 item``, ``2 items``, ``10,000 items``; a noun that ends in s or x gets ``es``, one in y ``ies``."""
    if number == 1:
        return f"1 {noun}"
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}{'es' if noun.endswith(('s', 'x', 'ch')) else 's'}"
    return f"{number:,} {plural}"


def named(names: Sequence[str], most: int) -> str:
    """Return the first names and how many more there are; a single one more is named, too."""
    shown = names if len(names) <= most + 1 else names[:most]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def percent(share: float) -> str:
    """Return a share from 0 to 1 as a person says it: ``3.1%`` below ten, ``29%`` above; ``<0.1%`` is not nothing."""
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{share * 100:.1f}%" if 0 < share < 0.0995 else f"{share * 100:.0f}%"


def between(least: float, most: float) -> str:
    """Return ``3 to 87``, or one number where both are the same."""
    low, high = f"{least:,.4g}" if least < 1000 else f"{least:,.0f}", f"{most:,.4g}" if most < 1000 else f"{most:,.0f}"
    return low if low == high else f"{low} to {high}"


def beginning(text: str, most: int) -> str:
    """Return a text on one line, at most so many characters of it."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= most else f"{line[: most - 3].rstrip()}..."
