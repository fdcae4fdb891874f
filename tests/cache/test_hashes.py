from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from musubi.cache.hashes import Hashes
from musubi.core.errors import DataError


def _write(path: Path, text: str, *, age_s: float = 60) -> None:
    path.write_text(text, encoding="utf-8")
    then = time.time() - age_s
    os.utime(path, (then, then))


def _remembered(folder: Path, path: Path) -> None:
    hashes = Hashes(folder)
    hashes.of(path)
    hashes.save()


def test_the_hash_is_the_contents_and_is_not_computed_again_for_an_unchanged_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    _write(path, "one")
    stat = path.stat()
    _remembered(tmp_path, path)

    path.write_text("two", encoding="utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert Hashes(tmp_path).of(path) == hashlib.sha256(b"one").hexdigest(), "same size and time: not read again"


def test_a_changed_file_has_another_hash(tmp_path: Path) -> None:
    path = tmp_path / "a"
    _write(path, "one")
    _remembered(tmp_path, path)

    _write(path, "two", age_s=30)

    assert Hashes(tmp_path).of(path) == hashlib.sha256(b"two").hexdigest()


def test_a_file_changed_a_moment_ago_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    _write(path, "one", age_s=0)
    stat = path.stat()
    _remembered(tmp_path, path)

    path.write_text("two", encoding="utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert Hashes(tmp_path).of(path) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("damage", ["", "[]", '{"a": 3}', "nonsense"])
def test_a_damaged_memory_is_forgotten(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a"
    _write(path, "one")
    (tmp_path / ".hashes.json").write_text(damage, encoding="utf-8")

    assert Hashes(tmp_path).of(path) == hashlib.sha256(b"one").hexdigest()


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone"):
        Hashes(tmp_path).of(tmp_path / "gone")
