from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest

from musubi.data.media.decoders import Decoders


def test_all_work_on_a_file_is_done_by_one_thread_in_order() -> None:
    done: list[tuple[str, int, int]] = []

    def work(name: str, number: int) -> None:
        done.append((name, number, threading.get_ident()))

    with Decoders(3) as decoders:
        futures = [decoders.submit(Path(name), partial(work, name, number)) for name in "abcd" for number in range(5)]
        for future in futures:
            future.result()

    for name in "abcd":
        own = [(number, thread) for found, number, thread in done if found == name]
        assert [number for number, _ in own] == [0, 1, 2, 3, 4]
        assert len({thread for _, thread in own}) == 1


def test_a_new_file_goes_to_the_idlest_thread() -> None:
    met = threading.Barrier(2, timeout=10)

    with Decoders(2) as decoders:
        first = decoders.submit(Path("a"), met.wait)
        second = decoders.submit(Path("b"), met.wait)

        assert {first.result(), second.result()} == {0, 1}, "they wait for each other, so each has its thread"


def test_what_goes_wrong_is_told_where_the_result_is_asked_for() -> None:
    def broken() -> None:
        raise ValueError("damaged")

    with Decoders(1) as decoders:
        bad, good = decoders.submit(Path("a"), broken), decoders.submit(Path("a"), lambda: 7)

        with pytest.raises(ValueError, match="damaged"):
            bad.result()
        assert good.result() == 7


def test_on_exit_what_has_not_begun_is_dropped_and_the_rest_waited_for() -> None:
    begun, go = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        go.wait(10)
        return "done"

    with Decoders(1) as decoders:
        running, waiting = decoders.submit(Path("a"), slow), decoders.submit(Path("a"), slow)
        begun.wait(10)
        threading.Timer(0.05, go.set).start()

    assert running.result(timeout=0) == "done"
    assert waiting.cancelled()
