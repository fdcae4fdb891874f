from __future__ import annotations

import pytest

from musubi.data.report.wording import beginning, between, counted, named, percent


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (0, "item", "0 items"),
        (1, "batch", "1 batch"),
        (2, "batch", "2 batches"),
        (12_345, "item", "12,345 items"),
        (3, "entry", "3 entries"),
    ],
)
def test_a_count_has_the_right_plural(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said


def test_a_long_list_says_how_many_more_there_are() -> None:
    assert named([str(i) for i in range(1_000)], 3) == "0, 1, 2 and 997 more"


def test_a_single_one_more_is_named_instead_of_counted() -> None:
    assert named(["a", "b", "c", "d"], 3) == "a, b, c, d"


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0%"), (0.0001, "<0.1%"), (0.0312, "3.1%"), (0.0996, "10%"), (0.287, "29%"), (1, "100%")],
)
def test_a_share_is_said_with_the_digits_that_matter(share: float, said: str) -> None:
    assert percent(share) == said


@pytest.mark.parametrize(
    ("least", "most", "said"), [(3, 87, "3 to 87"), (2, 2, "2"), (0.5, 2, "0.5 to 2"), (1, 12_345, "1 to 12,345")]
)
def test_a_range_of_one_number_is_that_number(least: float, most: float, said: str) -> None:
    assert between(least, most) == said


def test_a_beginning_is_one_line_even_without_spaces() -> None:
    assert beginning("one\ntwo  three", 40) == "one two three"
    assert beginning("猫" * 50, 10) == "猫" * 7 + "..."
