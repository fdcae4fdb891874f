"""A cheap name for the content of weights, equal on every machine that has the same files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from musubi.core.errors import Issue, WeightsError, shown
from musubi.weights.files import checkpoint_files, holds_checkpoint

_WHOLE = 16 << 20
_EDGE = 1 << 20
_SAMPLES, _SAMPLE = 64, 16 << 10


def identity(path: Path) -> str:
    """Return a hash of a checkpoint's files: their sizes, and all of their bytes or a fixed sample of them.

    Files up to 16 MiB count whole. Of larger ones the first and last MiB (which hold the header of a safetensors file
    and the checksums of a PyTorch archive) and 64 places between count. Names and places of files do not count, so that
    a moved or renamed file keeps its identity; a folder without weights (a tokenizer) counts as all its files.

    Raises:
        WeightsError: There is nothing to read.
    """
    digest = hashlib.sha256()
    for file in _files(path):
        size = file.stat().st_size
        digest.update(f"{size};".encode())
        for start, length in _places(size):
            digest.update(_bytes(file, start, length))
    return digest.hexdigest()[:32]


def _files(path: Path) -> list[Path]:
    if not path.is_dir() or holds_checkpoint(path):
        return list(checkpoint_files(path)) if path.suffix != ".json" or ".index." in path.name else [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise WeightsError("weights not found", [Issue(shown(path), "the folder is empty")])
    return files


def _places(size: int) -> list[tuple[int, int]]:
    if size <= _WHOLE:
        return [(0, size)]
    inner = size - 2 * _EDGE
    samples = [(_EDGE + inner * i // _SAMPLES, _SAMPLE) for i in range(_SAMPLES)]
    return [(0, _EDGE), *samples, (size - _EDGE, _EDGE)]


def _bytes(file: Path, start: int, length: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(length)
