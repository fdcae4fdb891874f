from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.inference.single_frame import SingleFrame

places = st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True).map(
    lambda found: SingleFrame(target=found[0], controls=tuple(found[1:]))
)


def problems(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        SingleFrame.parse(text)
    return {issue.path: issue.message for issue in caught.value.issues}


@given(places)
def test_what_is_written_is_what_is_read(single: SingleFrame) -> None:
    assert SingleFrame.parse(str(single)) == single


def test_what_is_not_said_is_at_the_beginning() -> None:
    assert SingleFrame.parse("default") == SingleFrame(target=0, controls=())
    assert SingleFrame.parse(" control_index = 5 ; 2 ") == SingleFrame(target=0, controls=(5, 2))


def test_frames_lie_in_the_order_of_time() -> None:
    assert SingleFrame(target=1, controls=(9, 0)).positions == (0, 1, 9)


def test_no_place_is_taken_twice() -> None:
    assert set(problems("target_index=1,control_index=0;1")) == {"target"}
    assert set(problems("target_index=1,control_index=2;2")) == {"controls"}


def test_everything_that_is_malformed_is_told() -> None:
    assert problems("target_indx=1,control_index=a;2,target_index=-1,no_2x") == {
        "target_indx": "means nothing here; did you mean 'target_index'?",
        "control_index": "must be whole numbers, as in control_index=1, got 'a;2'",
        "target_index": "must be whole numbers, as in target_index=1, got '-1'",
        "no_2x": "means nothing here",
    }
    assert problems("target_index=1,target_index=2") == {"target_index": "is given twice"}
    assert problems("target_index=1;2") == {"target_index": "is given twice"}
