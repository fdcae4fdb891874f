from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from musubi.core.errors import DataError
from musubi.data.sources.row import Row, typos
from tests.data.files import picture


def _row(**values: object) -> Row:
    return Row(values=values, place="rows:7")


def test_null_empty_text_and_not_a_number_are_not_given() -> None:
    row = _row(a=None, b="", c=float("nan"), d="x", e=0, f=0.5)

    assert [key for key in "abcdefg" if row.has(key)] == ["d", "e", "f"]


def test_a_field_of_texts_is_one_or_a_list() -> None:
    row = _row(one="  a cat\n", several=[" b ", "c"], none=[])

    assert [row.texts(key) for key in ("one", "several", "none")] == [("a cat",), ("b", "c"), ()]


@pytest.mark.parametrize("value", [3, ["a", 3], {"a": "b"}, None, True, "half \ud83d", "caf\udce9"])
def test_what_is_no_text_is_refused_with_the_row(value: object) -> None:
    with pytest.raises(DataError, match="rows:7: caption"):
        _row(caption=value).texts("caption")


@pytest.mark.parametrize(("value", "weight"), [(None, 1.0), ("", 1.0), (0, 0.0), (2.5, 2.5), ("0.25", 0.25)])
def test_a_weight_is_a_number_of_at_least_zero(value: object, weight: float) -> None:
    assert _row(weight=value).weight() == weight


@pytest.mark.parametrize("value", [-1, float("inf"), True, "much", [1], 10**400])
def test_a_weight_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="weight must be a number of at least 0"):
        _row(weight=value).weight()


def test_a_file_is_looked_for_in_one_folder_after_the_other(tmp_path: Path) -> None:
    for name in ("first/a.png", "second/a.png", "second/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(tmp_path / name, caption=None)
    folders = (tmp_path / "first", tmp_path / "second")

    row = _row(a="a.png", b="b.png", absolute=str(tmp_path / "second" / "a.png"))

    assert row.media(["a", "missing", "b", "absolute"], folders=folders) == (
        tmp_path / "first" / "a.png",
        tmp_path / "second" / "b.png",
        tmp_path / "second" / "a.png",
    )


@pytest.mark.parametrize("name", ["sub\\a.png", " sub/a.png ", "./sub/../sub/a.png"])
def test_a_path_is_found_as_people_write_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    picture(tmp_path / "sub" / "a.png", caption=None)

    assert _row(path=name).medium("path", folders=(tmp_path,)).samefile(tmp_path / "sub" / "a.png")


def test_a_folder_of_frames_is_a_medium(tmp_path: Path) -> None:
    (tmp_path / "walk").mkdir()
    picture(tmp_path / "walk" / "0.png", caption=None)

    assert _row(path="walk").medium("path", folders=(tmp_path,)) == tmp_path / "walk"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("gone.png", "path names no file"),
        ("nul\0.png", "path names no file"),
        ("a" * 5000, "path names no file"),
        ("loop.png", "path names no file"),
        ("empty", "path names a folder without pictures"),
        ("a.txt", ".txt is not read"),
        ("", "path must be a path"),
        (3, "path must be a path"),
        (["a.png"], "path must be a path"),
    ],
)
def test_what_is_no_medium_is_refused_with_the_row(tmp_path: Path, value: object, problem: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").touch()
    if os.name != "nt":
        (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")

    with pytest.raises(DataError) as caught:
        _row(path=value).medium("path", folders=(tmp_path, Path()))

    (issue,) = caught.value.issues
    assert issue.path == "rows:7"
    assert problem in issue.message
    assert len(issue.hint) < 300


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_refused_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")

    with pytest.raises(DataError, match="names no ordinary file"):
        _row(path="a.png").medium("path", folders=(tmp_path,))


def test_a_slip_in_a_fields_name_is_noted_once_with_its_first_row() -> None:
    rows = [_row(captoin="x", extra=1), _row(captoin="y"), _row(caption="z", captions_en="a"), _row(caption_0="b")]

    (note,) = typos(rows, [("caption", "text"), ("weight",)], re.compile(r"caption_\d"))

    assert str(note) == "rows:7: captoin is not read (hint: did you mean 'caption'? rows with it: 2)"


def test_a_field_is_no_slip_where_another_of_its_group_is_given() -> None:
    assert typos([_row(text="x", captions="y")], [("caption", "text")], re.compile("")) == []
