from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.data.sample import kind_of, labels

names = st.lists(
    st.sampled_from(["a/x.png", "a/x.jpg", "b/x.png", "b/X.png", "y.png", "c/b/x.png", "x-1.png"]), max_size=9
)


@settings(deadline=None, max_examples=50)
@given(files=names)
def test_no_two_files_share_a_label(files: list[str]) -> None:
    found = labels([Path(file) for file in files])

    assert len({label.casefold() for label in found}) == len(files)


def test_a_stem_of_its_own_is_the_label() -> None:
    assert labels([Path("d/cat.v2.png"), Path("d/my dog.jpg")]) == ("cat.v2", "my dog")


def test_a_folder_of_frames_is_labelled_by_its_whole_name() -> None:
    assert labels([Path("d/walk v1.5"), Path("d/walk v1.6")]) == ("walk v1.5", "walk v1.6")


def test_a_picture_called_like_a_window_of_a_folder_of_frames_gets_a_hash() -> None:
    folder, picture = labels([Path("walk"), Path("walk_00000-025.png")])

    assert folder == "walk"
    assert picture.startswith("walk_00000-025-")


def test_labels_do_not_change_when_the_whole_tree_moves() -> None:
    here = labels([Path("/home/me/a/x.png"), Path("/home/me/b/x.png")])
    there = labels([Path("/mnt/disk/a/x.png"), Path("/mnt/disk/b/x.png")])

    assert here == there


def test_labels_of_equal_stems_do_not_depend_on_the_order() -> None:
    first, second = labels([Path("a/x.png"), Path("a/x.jpg")])

    assert labels([Path("a/x.jpg"), Path("a/x.png")]) == (second, first)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.PNG", "image"), ("a.Jpg", "image"), ("a.MOV", "video"), ("a.txt", None)]
)
def test_the_extension_tells_the_kind_in_either_case(name: str, kind: str | None) -> None:
    assert kind_of(Path(name)) == kind
