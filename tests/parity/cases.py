"""Read the reference's results: JSON vectors, and golden cases of a JSON description beside a safetensors file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

_HERE = Path(__file__).parents[1]


def vectors_folder() -> Path:
    """Return ``$MUSUBI_VECTORS``, or the copies beside the tests."""
    return Path(os.environ.get("MUSUBI_VECTORS") or _HERE / "vectors")


def golden_folder() -> Path:
    """Return ``$MUSUBI_GOLDEN``, or the copies beside the tests."""
    return Path(os.environ.get("MUSUBI_GOLDEN") or _HERE / "golden")


def vector_stems(stem: str) -> list[str]:
    """Return the stems of all vector files of one kind: ``stem`` itself and ``stem_*`` or ``stem-*``."""
    return _stems(vectors_folder(), stem)


def golden_stems(stem: str) -> list[str]:
    """Return the stems of all golden cases of one kind: ``stem`` itself and ``stem_*`` or ``stem-*``."""
    folder = golden_folder()
    return [name for name in _stems(folder, stem) if (folder / f"{name}.safetensors").exists()]


def vector(stem: str) -> Any:
    """Return the content of ``<stem>.json``."""
    return json.loads((vectors_folder() / f"{stem}.json").read_text(encoding="utf-8"))


def vector_cases(stem: str) -> list[dict[str, Any]]:
    """Return the cases of all vector files of one kind; none, and so a skipped test, where there is no such file."""
    return [case for found in vector_stems(stem) for case in vector(found)["cases"]]


def golden(stem: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the description and the tensors of a golden case."""
    folder = golden_folder()
    description = json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))
    return description, load_file(folder / f"{stem}.safetensors")


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, without it: ``part(tensors, "ckpt.")`` is the checkpoint."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _stems(folder: Path, stem: str) -> list[str]:
    found = {path.stem for path in folder.glob(f"{stem}*.json")}
    return sorted(name for name in found if name == stem or name[len(stem)] in "_-.")
