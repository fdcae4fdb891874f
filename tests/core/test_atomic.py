from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musubi.core import atomic

KILLED_HALFWAY = """
import os, signal, sys
from musubi.core import atomic
with atomic.replacing(sys.argv[1]) as temporary:
    temporary.write_text("half of the new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_clean_exit_puts_the_new_content_in_place(tmp_path: Path) -> None:
    target = tmp_path / "folder/file.txt"

    with atomic.replacing(target) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert not target.exists()

    assert target.read_text(encoding="utf-8") == "new"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old", encoding="utf-8")

    with pytest.raises(UnicodeEncodeError):
        atomic.write_text(target, "half of the new \ud800")

    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_process_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old", encoding="utf-8")

    ended = subprocess.run([sys.executable, "-c", KILLED_HALFWAY, str(target)], check=False)

    assert ended.returncode == -signal.SIGKILL
    assert target.read_text(encoding="utf-8") == "old"
    assert atomic.write_text(target, "new").read_text(encoding="utf-8") == "new"


def test_readers_and_writers_at_once_see_whole_files_only(tmp_path: Path) -> None:
    target, contents = tmp_path / "file.txt", ["a" * 50_000, "b" * 50_000]
    atomic.write_text(target, contents[0])
    writers = [threading.Thread(target=lambda c=c: [atomic.write_text(target, c) for _ in range(10)]) for c in contents]

    for writer in writers:
        writer.start()
    seen = {target.read_text(encoding="utf-8") for _ in range(50)}
    for writer in writers:
        writer.join()

    assert seen <= set(contents)
    assert list(tmp_path.iterdir()) == [target]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back_as_it_was(tmp_path: Path, text: str) -> None:
    path = atomic.write_text(tmp_path / "file.txt", text)

    assert path.read_bytes() == text.encode()


def test_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    assert atomic.write_bytes(tmp_path / "file.bin", b"\x00\xff").read_bytes() == b"\x00\xff"


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_a_new_file_has_the_permissions_of_any_other_new_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()

    ours = atomic.write_text(tmp_path / "ours", "")

    assert ours.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_the_temporary_file_keeps_the_suffix_that_writers_look_at(tmp_path: Path) -> None:
    with atomic.replacing(tmp_path / "film.mp4") as temporary:
        assert temporary.suffix == ".mp4"


def test_a_long_name_is_no_obstacle(tmp_path: Path) -> None:
    name = "ä" * 120 + ".txt"

    assert atomic.write_text(tmp_path / name, "x").exists()
