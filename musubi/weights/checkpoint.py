"""One view of a checkpoint whatever its layout: names, shapes and types at once, tensors one at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor

from musubi.core.errors import Issue, WeightsError, shown
from musubi.weights.files import checkpoint_files
from musubi.weights.pickled import PickledFile
from musubi.weights.safetensor import SafetensorsFile


class WeightsFile(Protocol):
    """One open file of named tensors."""

    path: Path

    @property
    def metadata(self) -> Mapping[str, str]:
        """Text the file carries beside its tensors."""
        ...

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """Return a tensor's type without reading it."""
        ...

    def read(self, name: str) -> Tensor:
        """Read one tensor."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Checkpoint:
    """Named tensors in one or several files; open it with ``open_checkpoint`` and close it, best by ``with``.

    Example:
        >>> from pathlib import Path
        >>> from musubi.weights.checkpoint import open_checkpoint
        >>> with open_checkpoint(Path("wan_2.1_vae.safetensors")) as checkpoint:  # doctest: +SKIP
        ...     checkpoint.shape("conv1.weight")
    """

    def __init__(self, files: Sequence[WeightsFile]) -> None:
        self._files: tuple[WeightsFile, ...] = tuple(files)
        self._home: dict[str, WeightsFile] = {}
        for file in files:
            for name in file.names():
                self._home.setdefault(name, file)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, in reading order."""
        return tuple(file.path for file in self._files)

    @property
    def label(self) -> str:
        """How errors call this checkpoint: its first file, and how many more there are."""
        first, *others = self.paths
        return shown(first) + (f" (and {len(others)} more)" if others else "")

    @property
    def metadata(self) -> Mapping[str, str]:
        """The files' own metadata together; empty for pickled files."""
        return MappingProxyType({key: value for file in reversed(self._files) for key, value in file.metadata.items()})

    @property
    def config(self) -> Mapping[str, object]:
        """The ``config.json`` beside the files, as diffusers and transformers lay folders out; empty without one."""
        try:
            content = json.loads((self._files[0].path.parent / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return MappingProxyType({})
        return MappingProxyType(content if isinstance(content, dict) else {})

    def names(self) -> tuple[str, ...]:
        """Return the names of all tensors, file by file."""
        return tuple(self._home)

    def __contains__(self, name: object) -> bool:
        return name in self._home

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape; reads only the header."""
        return self._home[name].shape(name)

    def dtype(self, name: str) -> torch.dtype:
        """Return a tensor's type; reads only the header."""
        return self._home[name].dtype(name)

    def read(self, name: str) -> Tensor:
        """Read one tensor to the CPU. It may share memory with the file: copy it to keep it.

        Raises:
            WeightsError: The file is damaged there.
        """
        return self._home[name].read(name)

    def close(self) -> None:
        """Let go of all files."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_checkpoint(path: Path | Sequence[Path]) -> Checkpoint:
    """Open a checkpoint of any layout: single file, shards, index, folder, safetensors or (safely) pickled.

    Raises:
        WeightsError: Files are missing, damaged or of an unknown kind, or unpickling one would run code. All files with
            problems are named at once.
    """
    problems: list[Issue] = []
    opened: list[WeightsFile] = []
    with ExitStack() as undo:
        for file in checkpoint_files(path):
            try:
                opened.append(SafetensorsFile(file) if file.suffix.lower() == ".safetensors" else PickledFile(file))
                undo.callback(opened[-1].close)
            except WeightsError as error:
                problems.extend(error.issues)
        if problems:
            raise WeightsError("weights cannot be read", problems)
        undo.pop_all()
    return Checkpoint(opened)
