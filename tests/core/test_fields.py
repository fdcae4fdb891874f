from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.fields import at_least, count, did_you_mean, each, one_of, optional, positive, share

anything = st.none() | st.booleans() | st.text() | st.floats() | st.integers() | st.lists(st.integers())


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (positive, [1, 0.5], [0, -1, "1", None, True, float("nan")]),
        (at_least(2), [2, 2.5], [1.9, "2", None, True]),
        (count(), [1, 7], [0, 1.0, "1", None, True]),
        (count(0), [0], [-1]),
        (share, [0, 1, 0.5], [-0.1, 1.1, None, True]),
        (one_of("a", "b"), ["a"], ["c", None]),
        (optional(positive), [None, 1], [0]),
        (each(count()), [(), (1, 2), [3]], [(1, 0), "12", 5, None]),
    ],
)
def test_a_check_accepts_and_refuses(
    check: Callable[[object], str | None], good: list[object], bad: list[object]
) -> None:
    assert [check(value) for value in good] == [None] * len(good)
    assert all((check(value) or "").startswith(("must be", "[")) for value in bad)


@given(value=anything)
def test_a_check_never_raises(value: object) -> None:
    for check in (positive, at_least(1), count(), share, one_of(1, "a"), optional(count()), each(share)):
        assert check(value) is None or isinstance(check(value), str)


def test_a_message_shows_the_value() -> None:
    assert positive(-1) == "must be a number above 0, got -1"


def test_a_choice_names_the_nearest() -> None:
    assert one_of("euler", "unipc")("unpc") == "must be one of euler, unipc, got 'unpc'; did you mean 'unipc'?"


def test_each_names_the_member() -> None:
    assert each(count())((1, 0)) == "[1] must be a whole number of at least 1, got 0"


def test_only_a_near_word_is_suggested() -> None:
    assert did_you_mean("stps", ["steps", "seed"]) == "; did you mean 'steps'?"
    assert did_you_mean("zebra", ["steps", "seed"]) == ""
