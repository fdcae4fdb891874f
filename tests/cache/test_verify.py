from __future__ import annotations

from pathlib import Path

import pytest

from musubi.cache.cache import Cache
from musubi.cache.manifest import CachedFile
from musubi.cache.verify import file_issue
from musubi.data.dataset import Dataset
from musubi.testing.toy import Toy


def test_a_flipped_bit_a_missing_and_a_truncated_file_are_found_and_can_be_made_again(
    tmp_path: Path, dataset: Dataset
) -> None:
    cache = Cache(tmp_path / "cache", model=Toy()).build(dataset, progress=False)
    assert cache.verify(progress=False) == ()

    flipped, cut, gone = (tmp_path / "cache" / f"{name}_toy_te.safetensors" for name in ("cat", "cow", "dog"))
    flipped.write_bytes(flipped.read_bytes()[:-1] + bytes([flipped.read_bytes()[-1] ^ 1]))
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    issues = cache.verify(progress=False)

    found = {Path(issue.path).name: issue.message for issue in issues}
    assert found.keys() == {flipped.name, cut.name, gone.name}
    assert found[gone.name] == "is missing"
    assert found[flipped.name] == "its content is not what was written"
    flipped.unlink()
    assert cache.build(dataset, progress=False).verify(progress=False) == ()


def test_a_progress_bar_is_shown_unless_not_wanted(
    tmp_path: Path, dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = Cache(tmp_path / "cache", model=Toy()).build(dataset, progress=False)

    cache.verify(progress=False)
    quiet = capsys.readouterr().err
    cache.verify()

    assert (quiet, "verify: 100%" in capsys.readouterr().err) == ("", True)


def test_a_missing_and_a_cut_off_file_are_told_from_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"four")

    def issue(size: int, name: str = "a") -> str | None:
        found = file_issue(tmp_path, CachedFile(name=name, bytes=size, sha256="", key=""))
        return None if found is None else found.message

    assert (issue(4), issue(5), issue(4, "b")) == (None, "has 4 bytes instead of 5", "is missing")
