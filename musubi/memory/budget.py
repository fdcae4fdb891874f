"""Amounts of memory as people write and read them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_LEAST = 1 << 10
"""Bytes under which an amount is a number without its unit."""

_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def budget_bytes(text: str) -> int:
    """Return the bytes that a text such as ``16GiB`` or ``7.5 GB`` stands for.

    Raises:
        ValueError: It is not an amount of memory, or none.
    """
    found = _AMOUNT.fullmatch(text)
    if found is None or found[2].upper() not in _UNITS or float(found[1]) <= 0:
        raise ValueError(text)
    return round(float(found[1]) * _UNITS[found[2].upper()])


def budget(value: object) -> str | None:
    """Accept texts that ``budget_bytes`` takes."""
    message = f"must be an amount of memory such as '16GiB', got {value!r}"
    if not isinstance(value, str):
        return message
    try:
        return message if budget_bytes(value) < _LEAST else None
    except ValueError:
        return message


def size(value: int) -> str:
    """Return bytes in the unit that shows three digits."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}" if value < 999.5 * unit else f"{value / unit:.0f} {name}"
    return f"{value} B"
