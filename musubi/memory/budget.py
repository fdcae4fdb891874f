"""Amounts of memory as people write them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
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
        budget_bytes(value)
    except ValueError:
        return message
    return None
