"""Safetensors files written one tensor at a time, so that a checkpoint of any size takes the memory of one tensor."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import attrs
import torch
from torch import Tensor

from musubi.core import atomic
from musubi.core.errors import ConfigError, Issue, shown

_CODES: Mapping[torch.dtype, str] = MappingProxyType(
    {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.float8_e4m3fn: "F8_E4M3",
        torch.float8_e5m2: "F8_E5M2",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
)
_ALIGNMENT = 64
"""The tensors begin at a multiple of this, so that readers may map them in place."""


@attrs.frozen
class Shape:
    """What a header says of a tensor before its numbers are there."""

    dtype: torch.dtype
    size: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """How many bytes the tensor takes."""
        return math.prod(self.size) * self.dtype.itemsize


@contextmanager
def streamed(
    path: Path | str, shapes: Mapping[str, Shape], metadata: Mapping[str, str] | None = None
) -> Generator[TensorWriter]:
    """Open a safetensors file whose tensors are then ``put`` in any order; it appears, whole, at the end of the block.

    Args:
        path: Where to; it must end in ``.safetensors``.
        shapes: Type and shape of every tensor that will be written, in the order of the file.
        metadata: Text for the header.

    Raises:
        ConfigError: The name has another ending, a type is none of the format's, or the file cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise ConfigError("write weights", [Issue(shown(path), "is no .safetensors name", "give it that ending")])
    header, places = _header(shapes, metadata or {})
    with atomic.replacing(path) as temporary:
        with temporary.open("wb") as stream:
            stream.write(header)
            writer = TensorWriter(stream, len(header), shapes, places)
            yield writer
        missing = writer.missing()
        assert not missing, f"{len(missing)} tensors were never written, the first is {missing[0]}"


class TensorWriter:
    """The tensors of one file that is being written."""

    def __init__(self, stream: BinaryIO, start: int, shapes: Mapping[str, Shape], places: Mapping[str, int]) -> None:
        self._stream, self._start = stream, start
        self._shapes, self._places = shapes, places
        self._written: set[str] = set()

    def put(self, name: str, tensor: Tensor) -> None:
        """Write one tensor, of the shape and type that was announced."""
        expected = self._shapes[name]
        assert tuple(tensor.shape) == expected.size and tensor.dtype == expected.dtype, f"{name} is not as announced"  # noqa: PT018
        self._stream.seek(self._start + self._places[name])
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        self._stream.write(data.numpy().data)
        self._written.add(name)

    def missing(self) -> list[str]:
        """Return what was announced and not written."""
        return [name for name in self._shapes if name not in self._written]


def _header(shapes: Mapping[str, Shape], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Return the file's first bytes and where, after them, each tensor goes."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    places: dict[str, int] = {}
    place = 0
    for name, shape in shapes.items():
        if shape.dtype not in _CODES:
            raise ConfigError("write weights", [Issue(name, f"has type {shape.dtype}, which the format lacks")])
        places[name] = place
        offsets = [place, place + shape.nbytes]
        entries[name] = {"dtype": _CODES[shape.dtype], "shape": list(shape.size), "data_offsets": offsets}
        place += shape.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text, places
