from __future__ import annotations

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
