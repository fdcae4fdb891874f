from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from musubi.cache.building.ahead import decoded
from musubi.cache.building.batches import JobBatch, batches_of
from musubi.cache.building.jobs import Job
from tests.cache.making import a_job, an_item


def _batches(count: int, *, side: int = 1024) -> tuple[JobBatch, ...]:
    return batches_of(a_job(an_item(str(n), bucket=(side, side))) for n in range(count))


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("musubi-decode")]


def test_results_come_in_order_however_long_each_takes() -> None:
    def decode(job: Job) -> str:
        time.sleep(0.01 * (int(job.name) % 3 == 0))
        return job.name

    found = [(batch.number, list(names)) for batch, names in decoded(_batches(40, side=256), decode)]

    assert [number for number, _ in found] == list(range(3))
    assert [name for _, names in found for name in names] == [str(n) for n in range(40)]


def test_the_next_batches_are_decoded_while_one_is_used() -> None:
    begun: list[str] = []

    def decode(job: Job) -> None:
        begun.append(job.name)

    with closing(decoded(_batches(10), decode)) as ready:
        next(ready)
        deadline = time.monotonic() + 10
        while len(begun) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(begun) >= 3


@pytest.mark.parametrize(("room", "expected"), [(1, 1), (2, 2), (3, 3)])
def test_what_is_held_stays_within_the_limit(room: int, expected: int) -> None:
    batches = _batches(12)
    held, most = 0, 0
    lock = threading.Lock()

    def decode(job: Job) -> None:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)

    for _ in decoded(batches, decode, limit=room * batches[0].bytes):
        time.sleep(0.01)
        with lock:
            held -= 1

    assert most == expected


def test_a_batch_above_the_limit_is_decoded_alone() -> None:
    assert [len(results) for _, results in decoded(_batches(3), lambda job: job.name, limit=1)] == [1, 1, 1]


def test_results_are_let_go_before_the_next_are_given() -> None:
    kept = [results for _, results in decoded(_batches(3), lambda job: job.name)]

    assert kept == [[], [], []]


def test_an_error_is_raised_in_its_place_and_the_threads_end() -> None:
    def decode(job: Job) -> str:
        if job.name == "2":
            raise RuntimeError("broken")
        return job.name

    ready = decoded(_batches(5), decode)

    assert [list(next(ready)[1]) for _ in range(2)] == [["0"], ["1"]]
    with pytest.raises(RuntimeError, match="broken"):
        next(ready)
    assert not _threads()


def test_the_threads_end_when_the_caller_stops() -> None:
    with closing(decoded(_batches(5), lambda job: job.name)) as ready:
        next(ready)
        assert _threads()

    assert not _threads()
