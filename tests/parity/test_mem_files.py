"""No file of the reference's memory results goes untested: each has something in it, and a test of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from tests.parity.cases import vector, vectors_folder

FILES = sorted(path.name for path in vectors_folder().glob("mem_*") if path.suffix in {".json", ".safetensors"})
KINDS = sorted(path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_mem_*.py"))


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_memory_has_content_and_a_test(name: str) -> None:
    stem = name.rpartition(".")[0]
    kinds = [kind for kind in KINDS if stem == kind or stem.startswith(tuple(f"{kind}{mark}" for mark in "_-."))]

    assert kinds, f"no tests/parity/test_{stem}.py"
    assert _content(name)


def _content(name: str) -> object:
    """Return the cases, or whatever else a file has; of tensors the names."""
    if name.endswith(".json"):
        return vector(name.rpartition(".")[0])
    with safe_open(vectors_folder() / name, framework="pt") as file:
        return list(file.keys())
