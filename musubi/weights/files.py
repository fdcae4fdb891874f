"""Which files make up a checkpoint: a single file, numbered shards, an index, or a folder of these."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from musubi.core.errors import Issue, WeightsError, shown

_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d+)-of-(?P<count>\d+)(?P<suffix>\.\w+)")
_INDEX = re.compile(r".+\.index(\.[\w-]+)?\.json")
_SAFE, _PICKLED = (".safetensors",), (".pth", ".pt", ".bin", ".ckpt")
_HINT = "give a .safetensors, .pth, .pt or .bin file, a first shard, an .index.json, or a folder that holds one model"


def checkpoint_files(path: Path | Sequence[Path]) -> tuple[Path, ...]:
    """Return the files of a checkpoint in reading order.

    Args:
        path: A file, the first of ``-00001-of-0000M`` shards, an ``*.index.json``, a folder, or the files themselves.

    Raises:
        WeightsError: Nothing is there, a shard is missing (all missing ones are named), or a folder has several models.
    """
    if not isinstance(path, Path):
        return tuple(file for part in path for file in checkpoint_files(part))
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        raise WeightsError("weights not found", [Issue(shown(path), "no such file or folder", _HINT)])
    if _INDEX.fullmatch(path.name):
        return _in_index(path)
    if path.suffix.lower() not in (*_SAFE, *_PICKLED):
        kind = (
            "GGUF files hold quantised weights that are" if path.suffix.lower() == ".gguf" else "files of this kind are"
        )
        raise WeightsError("weights cannot be read", [Issue(shown(path), f"{kind} not supported", _HINT)])
    return _shards(path)


def holds_checkpoint(folder: Path) -> bool:
    """Whether a folder has a file of weights or an index directly inside."""
    return any(_is_weights(file) or _INDEX.fullmatch(file.name) for file in folder.iterdir())


def _is_weights(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".") and file.suffix.lower() in (*_SAFE, *_PICKLED)


def _in_folder(folder: Path) -> tuple[Path, ...]:
    indices = [file for file in sorted(folder.iterdir()) if _INDEX.fullmatch(file.name)]
    for suffixes in (_SAFE, _PICKLED):
        listed = [index for index in indices if any(suffix in index.name for suffix in suffixes)]
        if listed:
            return _in_index(_only(listed, folder))
        files = [file for file in sorted(folder.iterdir()) if _is_weights(file) and file.suffix.lower() in suffixes]
        if files:
            return _shards(_only(_first_shards(files), folder))
    raise WeightsError("no weights in this folder", [Issue(shown(folder), "holds no checkpoint", _HINT)])


def _first_shards(files: Sequence[Path]) -> list[Path]:
    """Return one file for each model: a single file, or the first of its shards."""
    models: dict[str, Path] = {}
    for file in files:
        match = _SHARD.fullmatch(file.name)
        models.setdefault(f"{match['stem']} of {match['count']}" if match else file.name, file)
    return list(models.values())


def _only(candidates: Sequence[Path], folder: Path) -> Path:
    if len(candidates) > 1:
        names = ", ".join(file.name for file in candidates)
        raise WeightsError(
            "which weights?", [Issue(shown(folder), f"holds several models: {names}", "give one of these files")]
        )
    return candidates[0]


def _in_index(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        problem = Issue(shown(index), f"is not an index of shards ({type(error).__name__})", "download it again")
        raise WeightsError("damaged weights", [problem]) from error
    return _all_present([index.parent / name for name in names])


def _shards(file: Path) -> tuple[Path, ...]:
    match = _SHARD.fullmatch(file.name)
    if match is None:
        return (file,)
    width, count = len(match["index"]), int(match["count"])
    names = [f"{match['stem']}-{i:0{width}d}-of-{match['count']}{match['suffix']}" for i in range(1, count + 1)]
    return _all_present([file.parent / name for name in names])


def _all_present(files: Sequence[Path]) -> tuple[Path, ...]:
    missing = [Issue(shown(file), "is missing", "download the whole set") for file in files if not file.is_file()]
    if missing:
        raise WeightsError("shards are missing", missing)
    return tuple(files)
