"""Safetensors files: the header tells everything but the numbers, which are read one tensor at a time.

The library's own ``safe_open`` maps the whole file as private memory, which systems refuse for a file larger than their
memory. A map of just the tensor that is wanted does the same work for a file of any size.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from musubi.core.errors import Issue, WeightsError, shown

_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "F64": "float64",
        "F32": "float32",
        "F16": "float16",
        "BF16": "bfloat16",
        "I64": "int64",
        "I32": "int32",
        "I16": "int16",
        "I8": "int8",
        "U64": "uint64",
        "U32": "uint32",
        "U16": "uint16",
        "U8": "uint8",
        "BOOL": "bool",
        "C64": "complex64",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E4M3FNUZ": "float8_e4m3fnuz",
        "F8_E5M2": "float8_e5m2",
        "F8_E5M2FNUZ": "float8_e5m2fnuz",
        "F8_E8M0": "float8_e8m0fnu",
    }
)
"""Torch's names of the format's types; newer versions of torch have more of them."""


class SafetensorsFile:
    """One ``.safetensors`` file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header, self._start = read_header(path)
        self._metadata: dict[str, str] = self._header.pop("__metadata__", {})

    @property
    def metadata(self) -> Mapping[str, str]:
        """The header's ``__metadata__``."""
        return MappingProxyType(self._metadata)

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors."""
        return tuple(self._header)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self._header[name]["shape"])

    def dtype(self, name: str) -> torch.dtype:
        """Return a tensor's type; raises ``WeightsError`` if this torch does not have it."""
        kind = self._header[name]["dtype"]
        found = getattr(torch, _TYPES.get(kind, ""), None)
        if not isinstance(found, torch.dtype):
            problem = Issue(shown(self.path), f"{name} has type {kind}, which torch {torch.__version__} does not read")
            raise WeightsError("weights cannot be read", [problem])
        return found

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        dtype = self.dtype(name)
        begin, end = self._header[name]["data_offsets"]
        if begin == end:
            return torch.empty(self.shape(name), dtype=dtype)
        data = self._map(self._start + begin, end - begin)
        if (self._start + begin) % dtype.itemsize:
            data = data.clone()
        return data.view(dtype).reshape(self.shape(name))

    def _map(self, start: int, length: int) -> Tensor:
        """Return bytes of the file as a copy-on-write map, which goes with the tensor."""
        page = start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        try:
            with self.path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), start - page + length, access=mmap.ACCESS_COPY, offset=page)
        except (OSError, ValueError) as error:
            raise _damaged(self.path, str(error)) from error
        return torch.frombuffer(mapped, dtype=torch.uint8, count=length, offset=start - page)

    def close(self) -> None:
        """Do nothing: the file is open only while a tensor of it is mapped."""


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
                raise _damaged(path, "the file ends inside its header")
            (length,) = struct.unpack("<Q", start)
            if length > size - 8:
                raise _damaged(path, _what_it_is(start) or "the file ends inside its header")
            header: dict[str, Any] = json.loads(file.read(length))
            _check(header, size - 8 - length, path)
    except OSError as error:
        raise WeightsError("weights cannot be read", [Issue(shown(path), str(error))]) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, "its header is not readable") from error
    return header, 8 + length


def _check(header: dict[str, Any], size: int, path: Path) -> None:
    """Compare what the header promises with what is there."""
    last = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype = getattr(torch, _TYPES.get(entry["dtype"], ""), None)
        if begin < 0 or end < begin or (dtype and math.prod(entry["shape"]) * dtype.itemsize != end - begin):
            raise _damaged(path, f"the header contradicts itself about {name}")
        last = max(last, end)
    if last != size:
        raise _damaged(path, f"{last} bytes of data are announced, {size} are there")


def _what_it_is(start: bytes) -> str:
    if start.startswith(b"version "):
        return "this is a Git LFS pointer, not the weights"
    if start.lstrip().lower().startswith((b"<!doc", b"<html")):
        return "this is a web page, not weights"
    return "this is a pickled file with the wrong ending" if start.startswith(b"PK") else ""


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError("damaged weights", [Issue(shown(path), f"cannot be read: {reason}", "download it again")])
