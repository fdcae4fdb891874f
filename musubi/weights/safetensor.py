"""Safetensors files: the header tells everything but the numbers, which are read one tensor at a time.

Numbers are read straight to where they are to stay. A map of the file, as the library's own ``safe_open`` has it, would
be copied from, count as memory of the process beside the copy, and end the process if the file got shorter meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from musubi.core.errors import Issue, WeightsError, shown
from musubi.weights.header import TYPES, damaged, read_header
from musubi.weights.room import raw

_AT_ONCE = 64 << 20
"""Bytes of one read: systems limit them to 2 GB, and Ctrl-C is heard between reads."""

_CONVERTED = 4 << 20
"""Bytes that are read at a time where their type changes or they go to a device: few enough to stay in the cache."""


class SafetensorsFile:
    """One ``.safetensors`` file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header, self._start = read_header(path)
        self._metadata: dict[str, str] = self._header.pop("__metadata__", {})
        # One for all tensors: a new one each time would leave holes between what is allocated meanwhile.
        self._buffer = torch.empty(0, dtype=torch.uint8)

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
        found = getattr(torch, TYPES.get(kind, ("", 0))[0], None)
        if not isinstance(found, torch.dtype):
            problem = Issue(shown(self.path), f"{name} has type {kind}, which torch {torch.__version__} does not read")
            raise WeightsError("weights cannot be read", [problem])
        return found

    def copy(self, name: str, target: Tensor, *, start: int = 0) -> None:
        """Fill a contiguous ``target`` with the rows of a tensor that begin at ``start``, in the target's own type."""
        dtype, shape = self.dtype(name), self.shape(name)
        if target.numel() == 0:
            return
        begin, end = self._header[name]["data_offsets"]
        row = (end - begin) // shape[0] if shape else 0
        if begin + start * row + target.numel() * dtype.itemsize > end:
            raise damaged(self.path, f"{name} has fewer rows than are asked of it")
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self._start + begin + start * row)
                self._fill(file, target, dtype)
        except (OSError, EOFError) as error:
            raise damaged(self.path, str(error)) from error

    def close(self) -> None:
        """Let go of the buffer; the file is open only while a tensor of it is read."""
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def _fill(self, file: FileIO, target: Tensor, dtype: torch.dtype) -> None:
        """Read as many numbers of a type as the target has."""
        if target.device.type == "cpu" and target.dtype == dtype:
            _read(file, raw(target))
            return
        if not self._buffer.numel():
            self._buffer = torch.empty(_CONVERTED, dtype=torch.uint8)
        part = self._buffer.view(dtype)
        for place in target.view(-1).split(len(part)):
            _read(file, raw(part[: len(place)]))
            place.copy_(part[: len(place)])


def _read(file: FileIO, place: memoryview) -> None:
    done = 0
    while done < len(place):
        count = file.readinto(place[done : done + _AT_ONCE])
        if not count:
            raise EOFError("the file ends inside a tensor")
        done += count
