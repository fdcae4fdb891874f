from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi import Captions, ConfigError

TAGS = st.lists(st.sampled_from(["cat", "dog", "fox", "owl", "bee", "ant", "eel"]), min_size=1, max_size=7, unique=True)


def test_captions_are_left_as_written_unless_told_otherwise() -> None:
    written = ("a cat,on  a mat\nat night", "")

    assert Captions().variants(written) == written


def test_the_trigger_goes_in_front_once() -> None:
    found = Captions(trigger="zuzu").variants(["on a roof", "a zuzu flies", ""])

    assert found == ("zuzu, on a roof", "a zuzu flies", "zuzu")


def test_a_trigger_inside_another_word_does_not_count_as_there() -> None:
    assert Captions(trigger="cat").variants(["a category", "a cat, sitting"]) == ("cat, a category", "a cat, sitting")


def test_a_trigger_among_shuffled_tags_stays_in_front_and_is_not_counted() -> None:
    found = Captions(trigger="zuzu", shuffles=6, keep=1).variants(["photo, zuzu, one, two, three"])

    assert len(found) > 1
    assert all(caption.startswith("zuzu, photo, ") for caption in found)


@given(tags=TAGS, keep=st.integers(0, 7), shuffles=st.integers(1, 5), seed=st.integers(0, 9))
def test_shuffling_moves_tags_and_loses_none(tags: list[str], keep: int, shuffles: int, seed: int) -> None:
    rule = Captions(shuffles=shuffles, keep=keep, seed=seed)

    found = rule.variants([", ".join(tags)])

    assert 1 <= len(found) <= shuffles
    for variant in found:
        assert sorted(variant.split(", ")) == sorted(tags)
        assert variant.split(", ")[:keep] == tags[:keep]
    assert found == rule.variants([", ".join(tags)])


def test_several_orders_are_found_and_another_seed_finds_others() -> None:
    caption = "one, two, three, four, five, six, seven, eight"

    found = Captions(shuffles=4).variants([caption])

    assert len(found) == 4
    assert set(found).isdisjoint(Captions(shuffles=4, seed=1).variants([caption]))


def test_equal_variants_are_encoded_once() -> None:
    assert Captions(shuffles=5).variants(["cat", "cat"]) == ("cat",)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"dropout": 1.5}, "dropout"),
        ({"separator": ""}, "separator"),
        ({"missing": "drop"}, "missing"),
        ({"keep": -1}, "keep"),
    ],
)
def test_a_wrong_value_is_named(options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Captions(**options)  # type: ignore[arg-type]

    assert [issue.path for issue in caught.value.issues] == [field]
