from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from musubi.core.errors import WeightsError
from musubi.weights import identity as module
from musubi.weights.identity import identity


def test_a_renamed_copy_elsewhere_has_the_same_identity(tmp_path: Path) -> None:
    original = tmp_path / "a.safetensors"
    original.write_bytes(b"12345" * 100)
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy(original, tmp_path / "elsewhere" / "b.safetensors")

    assert identity(original) == identity(Path(copy))
    assert str(tmp_path) not in identity(original)


def test_any_changed_byte_of_a_small_file_changes_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    content = bytearray(1000)
    path.write_bytes(content)
    before = identity(path)

    for place in (0, 500, 999):
        changed = bytearray(content)
        changed[place] = 1
        path.write_bytes(changed)
        assert identity(path) != before


def test_a_large_file_counts_by_size_ends_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_WHOLE": 100, "_EDGE": 40, "_SAMPLES": 4, "_SAMPLE": 10}.items():
        monkeypatch.setattr(module, name, value)
    path = tmp_path / "a.safetensors"
    path.write_bytes(bytes(1000))
    before = identity(path)

    path.write_bytes(bytes(1001))
    longer = identity(path)
    path.write_bytes(bytes(999) + b"x")
    other_end = identity(path)

    assert len({before, longer, other_end}) == 3


def test_a_tokenizer_folder_counts_with_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    before = identity(tmp_path)

    (tmp_path / "tokenizer_config.json").write_text('{"a": 1}', encoding="utf-8")

    assert identity(tmp_path) != before


def test_an_empty_folder_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="empty"):
        identity(tmp_path)
