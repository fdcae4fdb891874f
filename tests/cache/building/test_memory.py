from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from musubi.cache.building.memory import FILE, FileMemory, stamp_of
from musubi.core.errors import DataError
from musubi.data.sample import Probe
from tests.data.files import clip, picture


def _write(path: Path, text: str, *, age_s: float = 60) -> None:
    path.write_text(text, encoding="utf-8")
    _age(path, age_s)


def _age(path: Path, age_s: float = 60) -> None:
    then = time.time() - age_s
    os.utime(path, (then, then))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _remembered(folder: Path, path: Path) -> None:
    memory = FileMemory(folder)
    memory.digest(path)
    memory.save()


def test_the_hash_is_the_contents_and_is_not_computed_again_for_an_unchanged_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    _write(path, "one")
    stat = path.stat()
    _remembered(tmp_path, path)

    path.write_text("two", encoding="utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert FileMemory(tmp_path).digest(path) == _sha256("one"), "same size and time: not read again"


def test_what_another_build_hashed_in_the_meantime_is_not_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(path)
    _age(path)
    waiting = FileMemory(tmp_path)
    waiting.probe(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    stat = path.stat()
    _remembered(tmp_path, path)
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    waiting.reload()

    assert waiting.digest(path) == digest, "same size and time: not read again"


def test_what_older_rules_saw_is_looked_at_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    _write(path, "one")
    stat = path.stat()
    _remembered(tmp_path, path)
    path.write_text("two", encoding="utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    monkeypatch.setattr("musubi.cache.building.memory._RULES", 1000)

    assert FileMemory(tmp_path).digest(path) == _sha256("two")


def test_a_changed_file_has_another_hash(tmp_path: Path) -> None:
    path = tmp_path / "a"
    _write(path, "one")
    _remembered(tmp_path, path)

    _write(path, "two", age_s=30)

    assert FileMemory(tmp_path).digest(path) == _sha256("two")


def test_a_file_changed_a_moment_ago_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    _write(path, "one", age_s=0)
    stat = path.stat()
    _remembered(tmp_path, path)

    path.write_text("two", encoding="utf-8")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert FileMemory(tmp_path).digest(path) == _sha256("two")


def test_a_picture_and_a_clip_that_did_not_change_are_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [picture(tmp_path / "a.png", size=(64, 48)), clip(tmp_path / "b.mp4", frames=5)]
    for path in files:
        _age(path)
    memory = FileMemory(tmp_path)
    probes = [memory.probe(path) for path in files]
    memory.save()

    def refuse(path: Path) -> Probe:
        raise AssertionError(f"{path} is opened")

    monkeypatch.setattr("musubi.data.media.loading.probe", refuse)
    again = FileMemory(tmp_path)

    assert [again.probe(path) for path in files] == probes
    assert (probes[0].size, probes[1].frames) == ((64, 48), 5)


def test_what_was_learned_by_the_way_is_the_same_and_unreadable_files_are_left_for_later(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        _write(path, path.name)
    memory = FileMemory(tmp_path)

    memory.learn([*paths, tmp_path / "gone", tmp_path / "a"], progress=False)
    for path in paths:
        path.unlink()

    assert [memory.digest(path) for path in paths] == [_sha256(name) for name in "abc"]
    with pytest.raises(DataError, match="gone"):
        memory.digest(tmp_path / "gone")


def test_a_folder_of_frames_is_known_by_the_names_and_contents_of_its_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(3):
        picture(folder / f"{number}.png", seed=number, caption=None)
        _age(folder / f"{number}.png")
    _age(folder)
    first = FileMemory(tmp_path).digest(folder)

    (folder / "notes.txt").write_text("not a frame", encoding="utf-8")
    assert FileMemory(tmp_path).digest(folder) == first

    before = stamp_of(folder)
    picture(folder / "1.png", seed=9, caption=None)
    assert stamp_of(folder) != before
    assert FileMemory(tmp_path).digest(folder) != first


def test_files_of_which_nothing_was_asked_are_not_forgotten(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / name, name)
        _remembered(tmp_path, tmp_path / name)

    assert len(json.loads((tmp_path / FILE).read_text(encoding="utf-8"))) == 2


def test_nothing_is_written_where_nothing_was_learned(tmp_path: Path) -> None:
    _write(tmp_path / "a", "a")
    _remembered(tmp_path, tmp_path / "a")
    written = (tmp_path / FILE).stat().st_mtime_ns

    _remembered(tmp_path, tmp_path / "a")

    assert (tmp_path / FILE).stat().st_mtime_ns == written


def test_what_another_build_has_seen_is_learned(tmp_path: Path) -> None:
    _write(tmp_path / "a", "a")
    memory = FileMemory(tmp_path)
    _remembered(tmp_path, tmp_path / "a")
    (tmp_path / "a").chmod(0)

    memory.reload()
    (tmp_path / "a").chmod(0o600)

    assert memory.digest(tmp_path / "a") == _sha256("a")


def test_the_file_holds_no_path(tmp_path: Path) -> None:
    _write(tmp_path / "secret", "a")
    _remembered(tmp_path, tmp_path / "secret")

    assert "secret" not in (tmp_path / FILE).read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["", "[]", '{"a": 3}', "nonsense", "DIGEST", "PROBE"])
def test_a_damaged_memory_is_forgotten(tmp_path: Path, damage: str) -> None:
    path = picture(tmp_path / "a.png", size=(64, 48), caption=None)
    _age(path)
    memory = FileMemory(tmp_path)
    memory.probe(path)
    memory.digest(path)
    memory.save()
    ((key, known),) = json.loads((tmp_path / FILE).read_text(encoding="utf-8")).items()

    damaged = {"DIGEST": {key: [*known[:3], 7, *known[4:]]}, "PROBE": {key: [*known[:4], "image", "wide"]}}
    text = json.dumps(damaged[damage]) if damage in damaged else damage
    (tmp_path / FILE).write_text(text, encoding="utf-8")

    again = FileMemory(tmp_path)
    assert again.digest(path) == known[3]
    assert again.probe(path).size == (64, 48)


def test_a_memory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    _write(tmp_path / "a", "a")

    memory = FileMemory(tmp_path / "a")
    memory.digest(tmp_path / "a")
    memory.save()

    assert not (tmp_path / "a" / FILE).exists()


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone"):
        FileMemory(tmp_path).digest(tmp_path / "gone")
    with pytest.raises(DataError, match="gone"):
        FileMemory(tmp_path).probe(tmp_path / "gone")
