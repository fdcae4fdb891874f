"""The headers of safetensors files: what is in a file and where, without reading numbers and without torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from musubi.core.errors import Issue, WeightsError, shown

TYPES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "F64": ("float64", 8),
        "F32": ("float32", 4),
        "F16": ("float16", 2),
        "BF16": ("bfloat16", 2),
        "I64": ("int64", 8),
        "I32": ("int32", 4),
        "I16": ("int16", 2),
        "I8": ("int8", 1),
        "U64": ("uint64", 8),
        "U32": ("uint32", 4),
        "U16": ("uint16", 2),
        "U8": ("uint8", 1),
        "BOOL": ("bool", 1),
        "C64": ("complex64", 8),
        "F8_E4M3": ("float8_e4m3fn", 1),
        "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1),
        "F8_E5M2": ("float8_e5m2", 1),
        "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1),
        "F8_E8M0": ("float8_e8m0fnu", 1),
    }
)
"""Torch's names of the format's types, and their bytes; newer versions of torch have more of them."""


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file and where its data begin.

    The header has dtype, shape and offsets of every tensor by name, and text as ``__metadata__``.

    Raises:
        WeightsError: The file is cut short, is inconsistent, or is not a safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise damaged(path, "the file ends inside its header")
            (length,) = struct.unpack("<Q", start)
            if length > size - 8:
                raise damaged(path, _what_it_is(start) or "the file ends inside its header")
            header: dict[str, Any] = json.loads(file.read(length))
            _check(header, size - 8 - length, path)
    except OSError as error:
        raise WeightsError("weights cannot be read", [Issue(shown(path), str(error))]) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, "its header is not readable") from error
    return header, 8 + length


def damaged(path: Path, reason: str) -> WeightsError:
    """Return the error of a file that is not what it should be."""
    return WeightsError("damaged weights", [Issue(shown(path), f"cannot be read: {reason}", "download it again")])


def _check(header: dict[str, Any], size: int, path: Path) -> None:
    """Compare what the header promises with what is there."""
    last = 0
    for name, entry in header.items():
        if name == "__metadata__":
            if not all(isinstance(text, str) for text in entry.values()):
                raise damaged(path, "its metadata are not texts")
            continue
        begin, end = entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (begin, end, *entry["shape"])):
            raise damaged(path, f"the header gives {name} no shape or place")
        _, itemsize = TYPES.get(entry["dtype"], ("", 0))
        if end < begin or (itemsize and math.prod(entry["shape"]) * itemsize != end - begin):
            raise damaged(path, f"the header contradicts itself about {name}")
        last = max(last, end)
    if last != size:
        raise damaged(path, f"{last} bytes of data are announced, {size} are there")


def _what_it_is(start: bytes) -> str:
    if start.startswith(b"version "):
        return "this is a Git LFS pointer, not the weights"
    if start.lstrip().lower().startswith((b"<!doc", b"<html")):
        return "this is a web page, not weights"
    return "this is a pickled file with the wrong ending" if start.startswith(b"PK") else ""
