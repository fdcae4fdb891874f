from __future__ import annotations

import threading

import pytest

from musubi.core.errors import CacheError, Issue
from musubi.team import Team


def test_a_single_process_does_everything_itself() -> None:
    team = Team()

    assert (team.rank, team.count, team.leads) == (0, 1, True)
    assert team.lead(lambda: 3) == 3
    assert team.share(lambda: 3) == [3]
    with pytest.raises(CacheError, match="as it is"):
        team.share(lambda: _fail("as it is"))


def _fail(title: str) -> None:
    raise CacheError(title, [Issue("", "")])


def test_what_every_process_makes_for_itself_need_not_travel() -> None:
    made = Team().every(threading.Lock)

    assert not made.locked()
    with pytest.raises(CacheError, match="as it is"):
        Team().every(lambda: _fail("as it is"))
