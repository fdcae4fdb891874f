"""Checkpoints of any size that hold names and shapes but no numbers."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from musubi.weights.checkpoint import Checkpoint


class HeaderOnly:
    """A file of weights of which only the header exists."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str] | None = None) -> None:
        self.path = Path("models/header.safetensors")
        self.metadata: Mapping[str, str] = metadata or {}
        self._shapes = dict(shapes)

    def names(self) -> tuple[str, ...]:
        return tuple(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        return torch.bfloat16

    def copy(self, name: str, target: Tensor, *, start: int = 0) -> None:
        raise AssertionError("no tensor may be read")

    def close(self) -> None:
        pass


def header_only(shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str] | None = None) -> Checkpoint:
    """Return an open checkpoint of these names and shapes."""
    return Checkpoint([HeaderOnly(shapes, metadata)])


def write_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Path:
    """Write a safetensors file of published size that takes no space on the disk: its data is a hole of zeros."""
    entries: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    return path
