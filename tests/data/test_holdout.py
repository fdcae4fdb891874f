from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi import ConfigError, HoldOut

NAMES = st.sets(st.text("abcdef", min_size=1, max_size=6), min_size=2, max_size=40)


@given(names=NAMES, share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_a_share_is_some_of_the_files_and_never_all(names: set[str], share: float, seed: int) -> None:
    chosen = HoldOut(share=share, seed=seed).chosen(names)

    assert chosen < names
    assert len(chosen) >= 1
    assert abs(len(chosen) - share * len(names)) <= 1


@given(names=NAMES)
def test_the_order_of_the_files_does_not_matter(names: set[str]) -> None:
    rule = HoldOut(share=0.3)

    assert rule.chosen(sorted(names)) == rule.chosen(sorted(names, reverse=True))


@given(names=NAMES, new=st.text("xyz", min_size=1, max_size=4))
def test_a_new_file_moves_at_most_one_other(names: set[str], new: str) -> None:
    rule = HoldOut(share=0.3)

    before, after = rule.chosen(names), rule.chosen(names | {new})

    assert len(before - after) <= 1


def test_the_share_is_not_rounded_up_where_only_floats_make_it_more() -> None:
    assert len(HoldOut(share=0.07).chosen([f"clip {n}" for n in range(100)])) == 7


def test_a_single_file_is_trained_on() -> None:
    assert HoldOut(share=0.5).chosen(["only"]) == frozenset()


def test_a_folder_holds_what_is_in_it_at_any_depth(tmp_path: Path) -> None:
    rule = HoldOut(folder=tmp_path / "val")

    assert rule.holds(tmp_path / "val" / "deep" / "a.png")
    assert not rule.holds(tmp_path / "validation" / "a.png")


@pytest.mark.parametrize("options", [{}, {"share": 0.1, "folder": "val"}, {"share": 1.0}])
def test_a_choice_that_is_none_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="share"):
        HoldOut(**options)  # type: ignore[arg-type]
