from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from musubi.cache.building.lock import locked
from musubi.core.control import CancelToken
from musubi.core.errors import CacheError
from musubi.core.events import Event, Progress, Warned
from musubi.data.dataset import Dataset
from tests.cache.counting import build, contents


def test_the_second_waits_for_the_first_and_says_so_once(tmp_path: Path) -> None:
    heard: list[str] = []
    order: list[str] = []

    def second() -> None:
        with locked(tmp_path, tell=heard.append) as held:
            order.append(f"second {held}")

    with locked(tmp_path, tell=heard.append) as held:
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.5)
        order.append(f"first {held}")
    waiting.join()

    assert order == ["first True", "second True"]
    assert heard == ["another build of this cache is running, waiting"]


def test_waiting_ends_when_cancelled(tmp_path: Path) -> None:
    token = CancelToken()

    def cancel(message: str) -> None:
        token.cancel()

    with locked(tmp_path, tell=cancel), locked(tmp_path, tell=cancel, cancel=token) as held:
        assert not held


def test_a_file_system_without_locks_is_told_of_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock, **options: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    heard: list[str] = []

    with locked(tmp_path, tell=heard.append) as held:
        assert held
    assert heard == ["this file system has no locks: do not build the same cache twice at once"]


def test_a_folder_that_cannot_hold_a_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FileLock, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)

    with pytest.raises(CacheError, match="Read-only file system"), locked(tmp_path, tell=print):
        pass


def test_two_builds_at_once_make_one_cache_and_encode_nothing_twice(tmp_path: Path, dataset: Dataset) -> None:
    logs: dict[int, list[str]] = {}
    heard: list[Event] = []
    begun = threading.Event()

    def slowly(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "latents":
            begun.set()
            time.sleep(0.1)

    def first() -> None:
        logs[0] = build(tmp_path / "cache", dataset, on=[slowly])

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait(30)
    logs[1] = build(tmp_path / "cache", dataset, on=[heard.append])
    thread.join()

    assert (len(logs[0]), logs[1]) == (12, [])
    assert [e.message for e in heard if isinstance(e, Warned)] == ["another build of this cache is running, waiting"]
    build(tmp_path / "alone", dataset)
    assert contents(tmp_path / "cache") == contents(tmp_path / "alone")
