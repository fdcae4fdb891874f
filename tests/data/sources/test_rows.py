from __future__ import annotations

import json
from pathlib import Path

import pytest

from musubi.core.errors import DataError
from musubi.data.sources.rows import Jsonl
from tests.data.files import picture


def _rows(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_paths_are_relative_to_the_file_first_and_then_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows").mkdir()
    picture(tmp_path / "here.png")
    picture(tmp_path / "rows" / "beside.png")
    monkeypatch.chdir(tmp_path)
    rows = _rows(
        tmp_path / "rows" / "data.jsonl",
        {"image_path": "beside.png", "caption": "one", "extra": 1},
        "",
        {"image_path": "here.png", "caption": " two "},
    )

    listing = Jsonl(rows).read()

    assert [(r.path.name, r.captions) for r in listing.records] == [("beside.png", ("one",)), ("here.png", ("two",))]
    assert listing.records[1].place.endswith("data.jsonl:3")
    assert (listing.issues, listing.notes) == ((), ())


def test_controls_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("a", "x", "y", "z"):
        picture(tmp_path / f"{name}.png")
    row = {"image_path": "a.png", "caption": "", "control_path_0010": "z.png", "control_path": "x.png"}
    rows = _rows(tmp_path / "data.jsonl", {**row, "control_path_2": "y.png", "control_path_0": "a.png"})

    (record,) = Jsonl(rows).read().records

    assert [path.name for path in record.controls["control"]] == ["x.png", "y.png", "z.png"]


def test_the_number_that_ends_a_controls_name_decides_its_place(tmp_path: Path) -> None:
    for name in ("a", "x", "y"):
        picture(tmp_path / f"{name}.png")
    row = {"image_path": "a.png", "caption": "", "control_path_depth_20240601123456": "y.png"}
    rows = _rows(tmp_path / "data.jsonl", {**row, "control_path_pose_1": "x.png"})

    (record,) = Jsonl(rows).read().records

    assert [path.name for path in record.controls["control"]] == ["x.png", "y.png"]


def test_a_field_that_is_called_nearly_like_a_control_is_noted_and_not_read(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = {"image_path": "a.png", "caption": "", "control_paths": "a.png"}

    listing = Jsonl(_rows(tmp_path / "data.jsonl", row)).read()

    assert [record.controls for record in listing.records] == [{}]
    assert [(note.message, note.hint[:28]) for note in listing.notes] == [
        ("control_paths is not read", "did you mean 'control_path'?")
    ]


def test_numbered_controls_are_no_slips(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = {"image_path": "a.png", "caption": "", "control_path_1": "a.png"}

    assert Jsonl(_rows(tmp_path / "data.jsonl", row)).read().notes == ()


def test_an_empty_control_is_none(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = {"image_path": "a.png", "caption": "", "control_path": "", "control_path_1": None}

    (record,) = Jsonl(_rows(tmp_path / "data.jsonl", row)).read().records

    assert record.controls == {}


def test_folders_of_frames_are_clips_and_controls(tmp_path: Path) -> None:
    for name in ("walk", "pose"):
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "0.png")
    row = {"video_path": "walk", "caption": "a walk", "control_path": "pose"}

    (record,) = Jsonl(_rows(tmp_path / "data.jsonl", row)).read().records

    assert (record.path, record.controls) == (tmp_path / "walk", {"control": (tmp_path / "pose",)})


def test_a_row_may_have_several_captions_a_mask_and_a_weight(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "m.png")
    extras = {"mask_path": "m.png", "weight": 0}
    rows = _rows(
        tmp_path / "data.jsonl",
        {"image_path": "a.png", "caption": ["one", " two"], **extras},
        {"image_path": "a.png", "captions": ["one", "two"], **extras},
    )

    records = Jsonl(rows).read().records

    assert [(r.captions, r.mask, r.weight) for r in records] == 2 * [(("one", "two"), tmp_path / "m.png", 0.0)]


@pytest.mark.parametrize("row", [{}, {"caption": None}, {"caption": []}, {"captions": None}])
def test_a_row_without_a_caption_is_listed_with_the_way_out(tmp_path: Path, row: dict[str, object]) -> None:
    picture(tmp_path / "a.png")

    (record,) = Jsonl(_rows(tmp_path / "data.jsonl", {"image_path": "a.png", **row})).read().records

    assert (record.captions, record.remedy) == ((), 'add "caption": "..." to the row')


def test_the_same_file_may_be_in_several_rows(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = {"image_path": "a.png", "caption": "x"}

    assert len(Jsonl(_rows(tmp_path / "data.jsonl", row, row)).read().records) == 2


def test_a_slip_in_a_fields_name_is_noted(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = {"image_path": "a.png", "captoin": "x", "source": "web"}

    listing = Jsonl(_rows(tmp_path / "data.jsonl", row)).read()

    assert len(listing.records) == 1
    assert [note.message for note in listing.notes] == ["captoin is not read"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{not json", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ({"caption": "x"}, "needs either image_path or video_path"),
        ({"image_pth": "a.png", "caption": "x"}, "did you mean 'image_path'"),
        ({"image_path": "a.png", "video_path": "a.png", "caption": "x"}, "needs either image_path or video_path"),
        ({"image_path": "a.png", "caption": 3}, "caption must be text or a list of texts"),
        ({"image_path": "a.png", "caption": "x", "captions": ["y"]}, "has both caption and captions"),
        ({"image_path": "gone.png", "caption": "x"}, "image_path names no file"),
        ({"image_path": 3, "caption": "x"}, "image_path must be a path"),
        ({"image_path": "data.jsonl", "caption": "x"}, ".jsonl is not read"),
        ({"image_path": "a.png", "caption": "x", "control_path": "gone.png"}, "control_path names no file"),
        ({"image_path": "a.png", "caption": "x", "control_path": ["a.png"]}, "control_path must be a path"),
        ({"image_path": "a.png", "caption": "x", "control_path_first": "a.png"}, "control_path_first is not a control"),
        ({"image_path": "a.png", "caption": "x", "mask_path": "gone.png"}, "mask_path names no file"),
        ({"image_path": "a.png", "caption": "x", "weight": -1}, "weight must be a number of at least 0"),
    ],
)
def test_a_bad_row_is_an_issue_that_names_its_line_and_leaves_the_others(
    tmp_path: Path, row: object, problem: str
) -> None:
    picture(tmp_path / "a.png")
    rows = _rows(tmp_path / "data.jsonl", {"image_path": "a.png", "caption": "good"}, row)

    listing = Jsonl(rows).read()

    assert len(listing.records) == 1
    (issue,) = listing.issues
    assert issue.path.endswith("data.jsonl:2")
    assert problem in issue.message


def test_a_missing_or_empty_file_of_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        Jsonl(tmp_path / "nowhere.jsonl").read()
    with pytest.raises(DataError, match="has no row"):
        Jsonl(_rows(tmp_path / "empty.jsonl", "", "  ")).read()
