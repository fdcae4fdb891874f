from __future__ import annotations

import math

import pytest

from musubi.compat import checks
from musubi.compat.checks import Check

REFUSED: list[tuple[Check, object]] = [
    (checks.text, ""),
    (checks.text, 5),
    (checks.text, None),
    (checks.flag, 1),
    (checks.flag, "true"),
    (checks.whole, True),
    (checks.whole, 2.0),
    (checks.whole, "2"),
    (checks.positive, 0),
    (checks.positive, -1),
    (checks.positive, True),
    (checks.rate, 30),
    (checks.rate, 0.0),
    (checks.rate, math.nan),
    (checks.rate, math.inf),
    (checks.size, 512.0),
    (checks.size, True),
    (checks.size, 0),
    (checks.size, [512]),
    (checks.size, [512, 512, 3]),
    (checks.size, "512"),
    (checks.size, None),
    (checks.list_of(checks.whole), 3),
    (checks.list_of(checks.whole, least=1), []),
    (checks.choice("head", "chunk"), "heads"),
    (checks.only_false("is for another model"), True),
    (checks.only_false("is for another model"), 0),
]
ACCEPTED: list[tuple[Check, object]] = [
    (checks.text, ".txt"),
    (checks.flag, False),
    (checks.whole, -3),
    (checks.positive, 1),
    (checks.rate, 23.976),
    (checks.size, 512),
    (checks.size, [512, 768]),
    (checks.size, (512, 768)),
    (checks.list_of(checks.whole), []),
    (checks.list_of(checks.positive, least=1), [1, 25]),
    (checks.choice("head", "chunk"), "chunk"),
    (checks.only_false("is for another model"), False),
]


@pytest.mark.parametrize(("check", "value"), REFUSED)
def test_what_the_reference_refuses_or_breaks_on_is_refused(check: Check, value: object) -> None:
    issues = list(check(value))

    assert issues
    assert all(issue.message for issue in issues)


@pytest.mark.parametrize(("check", "value"), ACCEPTED)
def test_what_can_be_trained_with_is_accepted(check: Check, value: object) -> None:
    assert list(check(value)) == []


def test_every_bad_member_of_a_list_is_named_by_its_place() -> None:
    issues = list(checks.list_of(checks.positive)([1, 25.0, 0, True]))

    assert [issue.path for issue in issues] == ["[1]", "[2]", "[3]"]


def test_a_bad_side_of_a_size_is_named_by_its_place() -> None:
    (issue,) = checks.size([512, 0])

    assert issue.path == "[1]"


def test_a_whole_number_where_a_decimal_is_wanted_is_shown_as_one() -> None:
    (issue,) = checks.rate(30)

    assert issue.hint == "write 30.0"
