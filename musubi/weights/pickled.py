"""PyTorch's own files (``.pth .pt .bin``), mapped into memory and unpickled without running code.

A map counts as memory of the process as far as it was read, so it is made anew every now and then. Files older than
torch 1.6 cannot be mapped: they are in memory as a whole while they are open.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from musubi.core.errors import Issue, WeightsError, shown

_WRAPPERS = ("module", "state_dict", "model_state_dict")
MAPPED, PER_TENSOR = 32 << 20, 256 << 10
"""Bytes to read from one map before it is made anew, at least, and for each tensor: unpickling takes time for each."""

_GLOBAL = re.compile(r"(?:GLOBAL|class|global|type) ['\"]?([\w.]+\.[\w.]+)['\"]?")


class PickledFile:
    """One open ``.pth``, ``.pt`` or ``.bin`` file whose tensors are mapped from disk, not loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_archive = _is_archive(path)
        self._tensors = self._mapped()
        self._read = 0

    @property
    def metadata(self) -> Mapping[str, str]:
        """Nothing: this format carries no text."""
        return MappingProxyType({})

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors."""
        return tuple(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """Return a tensor's type."""
        return self._tensors[name].dtype

    def copy(self, name: str, target: Tensor, *, start: int = 0) -> None:
        """Fill ``target`` with the rows of a tensor that begin at ``start``, in the target's own type and device."""
        source = self._tensors[name].detach()
        target.copy_(source[start : start + len(target)] if source.ndim else source)
        self._read += target.numel() * source.dtype.itemsize
        del source
        if self._is_archive and self._read >= max(MAPPED, PER_TENSOR * len(self._tensors)):
            self.close()
            self._tensors = self._mapped()
            self._read = 0

    def close(self) -> None:
        """Let go of the file."""
        self._tensors = {}

    def _mapped(self) -> dict[str, Tensor]:
        return _tensors(_unpickle(self.path, is_archive=self._is_archive), self.path)


def _is_archive(path: Path) -> bool:
    """Tell whether a file has torch's format since 1.6, which can be mapped."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"PK"
    except OSError as error:
        raise WeightsError("weights cannot be read", [Issue(shown(path), str(error))]) from error


def _unpickle(path: Path, *, is_archive: bool) -> object:
    try:
        return _load(path, is_archive=is_archive)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        no_room = "mmap" in reason
        hint = "use a .safetensors version, which needs no room for the whole file" if no_room else "download it again"
        problem = Issue(shown(path), f"cannot be read: {reason}", hint)
        raise WeightsError("weights cannot be read" if no_room else "damaged weights", [problem]) from error


def _load(path: Path, *, is_archive: bool) -> object:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected pickle protocol")
        return torch.load(path, map_location="cpu", mmap=is_archive, weights_only=True)


def _refused(path: Path, error: Exception) -> WeightsError:
    found = _GLOBAL.search(str(error))
    if found is None and "Unsupported" not in str(error) and "weights_only" not in str(error):
        return WeightsError(
            "damaged weights", [Issue(shown(path), "is not a file of PyTorch weights", "download it again")]
        )
    what = f"a Python object ({found[1]})" if found else "Python objects"
    return WeightsError(
        "unsafe weights",
        [
            Issue(
                shown(path),
                f"contains {what} besides tensors; unpickling it could run code, so it is not loaded",
                "use a .safetensors version of these weights",
            )
        ],
    )


def _tensors(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        problem = Issue(shown(path), "contains no named tensors", "give a file of model weights (a state dict)")
        raise WeightsError("weights cannot be read", [problem])
    return tensors
