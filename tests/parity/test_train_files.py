"""No file of the reference's training results goes untested: each has cases, and a test of its own that runs some."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.cases import vector, vectors_folder

FILES = sorted(path.stem for path in vectors_folder().glob("train_*.json"))
KINDS = sorted(path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_train_*.py"))


@pytest.mark.parametrize("stem", FILES)
def test_every_file_of_training_has_cases_and_a_test(stem: str) -> None:
    kinds = [kind for kind in KINDS if stem == kind or stem.startswith(tuple(f"{kind}{mark}" for mark in "_-."))]

    assert kinds, f"no tests/parity/test_{stem}.py"
    assert vector(stem)["cases"]
