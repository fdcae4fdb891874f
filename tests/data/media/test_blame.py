from __future__ import annotations

import pytest

from musubi.core.errors import DataError, Issue
from musubi.data.media.blame import blamed


def test_what_is_wrong_with_a_file_is_told_of_the_item_that_is_lost_with_it() -> None:
    damage = [Issue("masks/b.png", "is empty", "copy it again"), Issue("masks/b.png", "is odd")]

    with pytest.raises(DataError) as caught, blamed("a.png", "mask"):
        raise DataError("cannot read", damage)

    assert caught.value.issues == (
        Issue("a.png", "mask is empty", "masks/b.png: copy it again"),
        Issue("a.png", "mask is odd", "masks/b.png: "),
    )
    assert isinstance(caught.value.__cause__, DataError)


def test_what_is_not_wrong_is_not_told() -> None:
    with blamed("a.png", "mask"):
        found = 1

    assert found == 1
