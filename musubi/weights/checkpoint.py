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
from musubi.weights.companions import Stated
from musubi.weights.files import checkpoint_files
from musubi.weights.foreign import refuse_foreign
from musubi.weights.pickled import PickledFile
from musubi.weights.room import room
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

    def copy(self, name: str, target: Tensor, *, start: int = 0) -> None:
        """Fill a contiguous ``target`` with the rows of a tensor that begin at ``start``, in the target's own type."""
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
        self._repeated: list[str] = []
        for file in files:
            for name in file.names():
                if self._home.setdefault(name, file) is not file:
                    self._repeated.append(name)

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
    def repeated(self) -> tuple[str, ...]:
        """Names that more than one file has: which of the tensors counts would hang on the order of the files."""
        return tuple(self._repeated)

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

    def stated(self) -> dict[str, Stated]:
        """Return type and shape of every tensor; reads only the headers."""
        return {name: Stated(_type_name(file, name), file.shape(name)) for name, file in self._home.items()}

    def read(self, name: str) -> Tensor:
        """Read one tensor into memory of its own, on the CPU.

        Raises:
            WeightsError: The file is damaged there.
        """
        tensor = room(self.shape(name), self.dtype(name))
        self.copy(name, tensor)
        return tensor

    def copy(self, name: str, target: Tensor, *, start: int = 0) -> None:
        """Fill a contiguous tensor, on any device, with rows of one of the checkpoint's, in the target's own type.

        Args:
            name: The tensor to read from.
            target: What to fill; its first axis is rows, and the others are those of the tensor.
            start: The first row.

        Raises:
            WeightsError: The file is damaged there.
        """
        self._home[name].copy(name, target, start=start)

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
        WeightsError: Files are missing, damaged or of an unknown kind, or unpickling one would run code: all files with
            problems are named at once. Or the weights are quantised in a way that is not supported.
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
        checkpoint = Checkpoint(opened)
        refuse_foreign(checkpoint)
        undo.pop_all()
    return checkpoint


def _type_name(file: WeightsFile, name: str) -> str:
    """Return torch's name of a type; nothing for one that this torch lacks, which is an error where it is read."""
    try:
        return str(file.dtype(name)).removeprefix("torch.")
    except WeightsError:
        return ""
