from __future__ import annotations

import gc
import weakref
from collections.abc import Generator

import pytest

from musubi.cache.building.garbage import settled


class _Loop:
    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def nothing_settled() -> Generator[None, None, None]:
    """The tests of one process have settled the collector for all of them."""
    gc.unfreeze()
    yield
    gc.freeze()


def test_the_collector_leaves_alone_what_was_there_and_collects_what_is_new() -> None:
    old = _Loop()
    old_one = weakref.ref(old)

    with settled():
        del old
        new_one = weakref.ref(_Loop())
        gc.collect()
        assert old_one() is not None
        assert new_one() is None

    gc.collect()
    assert old_one() is None
    assert gc.get_freeze_count() == 0


def test_what_someone_else_has_settled_stays_so() -> None:
    gc.freeze()

    with settled():
        pass

    assert gc.get_freeze_count() > 0
