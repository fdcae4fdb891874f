from __future__ import annotations

import json
from pathlib import Path

import pytest

from musubi.core.errors import ConfigError, DataError
from musubi.data.sources import Folder, Jsonl, Source
from tests.data.files import picture


def _rows(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_folder_lists_media_by_path_with_their_captions(tmp_path: Path) -> None:
    for name in ("b.png", "clip_2.png", "clip_10.png", "A.PNG"):
        picture(tmp_path / name, caption=f"  this is {name}\n")

    listing = Folder(tmp_path).read()

    assert [record.path.name for record in listing.records] == ["A.PNG", "b.png", "clip_10.png", "clip_2.png"]
    assert [record.caption for record in listing.records][:2] == ["this is A.PNG", "this is b.png"]
    assert not listing.issues


def test_subfolders_count_only_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "sub" / ".hidden").mkdir(parents=True)
    picture(tmp_path / "a.png")
    picture(tmp_path / "sub" / "b.png")
    picture(tmp_path / "sub" / "._c.png")

    assert [r.path.name for r in Folder(tmp_path).read().records] == ["a.png"]
    assert [r.path.name for r in Folder(tmp_path, recursive=True).read().records] == ["a.png", "b.png"]


def test_captions_may_have_another_extension_and_a_byte_order_mark(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", caption=None)
    (tmp_path / "a.caption.txt").write_text("größer 画像", encoding="utf-8-sig")

    (record,) = Folder(tmp_path, caption_extension=".caption.txt").read().records

    assert record.caption == "größer 画像"


def test_a_missing_or_unreadable_caption_is_an_issue_that_names_the_file(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", caption=None)
    picture(tmp_path / "b.png")
    picture(tmp_path / "c.png").with_suffix(".txt").write_bytes(b"\xff\xfe\x00caf\xe9")

    listing = Folder(tmp_path).read()

    assert [record.path.name for record in listing.records] == ["b.png"]
    assert [str(issue).rpartition("/")[2] for issue in listing.issues] == [
        "a.png: caption is missing (hint: write a.txt beside it)",
        "c.txt: caption is not UTF-8 (hint: save the file as UTF-8 text)",
    ]


def test_media_of_a_format_that_is_not_read_is_reported(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.gif").write_bytes(b"GIF89a")

    (issue,) = Folder(tmp_path).read().issues

    assert "b.gif: .gif is not read" in str(issue)


@pytest.mark.parametrize("name", ["nowhere", "empty", "file.txt"])
def test_a_folder_without_media_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("", encoding="utf-8")

    with pytest.raises(DataError, match=name):
        Folder(tmp_path / name).read()


def test_jsonl_paths_are_relative_to_the_file_first_and_then_to_the_working_directory(
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

    assert [(r.path.name, r.caption) for r in listing.records] == [("beside.png", "one"), ("here.png", "two")]
    assert listing.records[1].place.endswith("data.jsonl:3")


def test_controls_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("a", "x", "y", "z"):
        picture(tmp_path / f"{name}.png")
    row = {"image_path": "a.png", "caption": "", "control_path_0010": "z.png", "control_path": "x.png"}
    rows = _rows(tmp_path / "data.jsonl", {**row, "control_path_2": "y.png", "control_path_0": "a.png"})

    (record,) = Jsonl(rows).read().records

    assert [path.name for path in record.controls["control"]] == ["x.png", "y.png", "z.png"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{not json", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ({"caption": "x"}, "needs either image_path or video_path"),
        ({"image_pth": "a.png", "caption": "x"}, "did you mean 'image_path'"),
        ({"image_path": "a.png", "video_path": "a.png", "caption": "x"}, "needs either image_path or video_path"),
        ({"image_path": "a.png"}, "caption is missing"),
        ({"image_path": "a.png", "caption": None}, "caption is missing"),
        ({"image_path": "gone.png", "caption": "x"}, "image_path names no file"),
        ({"image_path": 3, "caption": "x"}, "image_path must be a path"),
        ({"image_path": "data.jsonl", "caption": "x"}, ".jsonl is not read"),
        ({"image_path": "a.png", "caption": "x", "control_path_first": "a.png"}, "control_path_first is not a control"),
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


@pytest.mark.parametrize("source", [Folder("a b/ü", recursive=True), Jsonl("rows.jsonl")])
def test_sources_survive_a_round_trip_by_their_kind(source: Source) -> None:
    assert Source.from_toml(source.to_toml()) == source


def test_an_empty_caption_extension_is_refused() -> None:
    with pytest.raises(ConfigError, match="caption_extension: must not be empty"):
        Folder("a", caption_extension="")
