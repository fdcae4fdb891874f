from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musubi.core.errors import ConfigError, DataError
from musubi.data.sources.metadata import MetadataFolder
from tests.data.files import picture


def _csv(folder: Path, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    return folder


def _pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(folder / name, size=(16, 16), caption=None)


ROWS = [{"file_name": "images/a.png", "text": "a cat"}, {"file_name": "b.png", "text": "größer, 画像"}]


def _write(folder: Path, name: str) -> None:
    if name == "metadata.csv":
        _csv(folder, "file_name,text", "images/a.png,a cat", 'b.png,"größer, 画像"')
    elif name == "metadata.jsonl":
        (folder / name).write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), folder / name)


@pytest.mark.parametrize(("name", "places"), [("csv", "23"), ("jsonl", "12"), ("parquet", "12")])
def test_the_three_kinds_of_table_say_the_same(tmp_path: Path, name: str, places: str) -> None:
    _pictures(tmp_path, "images/a.png", "b.png")
    _write(tmp_path, f"metadata.{name}")

    listing = MetadataFolder(tmp_path).read()

    assert [(r.path, r.captions) for r in listing.records] == [
        (tmp_path / "images" / "a.png", ("a cat",)),
        (tmp_path / "b.png", ("größer, 画像",)),
    ]
    assert [record.place.rpartition("/")[2] for record in listing.records] == [f"metadata.{name}:{n}" for n in places]
    assert (listing.issues, listing.notes) == ((), ())


def test_tables_in_subfolders_count_only_when_asked_for(tmp_path: Path) -> None:
    for split in ("train", "more"):
        _pictures(tmp_path / split, "a.png")
        _csv(tmp_path / split, "file_name,caption", f"a.png,from {split}")

    listing = MetadataFolder(tmp_path, recursive=True).read()

    assert [(r.path.parent.name, r.captions) for r in listing.records] == [
        ("more", ("from more",)),
        ("train", ("from train",)),
    ]
    with pytest.raises(DataError, match=r"holds no metadata.csv.*recursive=True"):
        MetadataFolder(tmp_path).read()


def test_controls_masks_and_weights_have_columns_of_their_own(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png", "x.png", "y.png", "m.png", "z.png")
    _csv(
        tmp_path,
        "file_name,text,control_10_file_name,control_2_file_name,mask_file_name,weight",
        "a.png,one,y.png,x.png,m.png,0.5",
        "z.png,two,,,,",
    )

    first, second = MetadataFolder(tmp_path).read().records

    assert [path.name for path in first.controls["control"]] == ["x.png", "y.png"]
    assert (first.mask, first.weight) == (tmp_path / "m.png", 0.5)
    assert (dict(second.controls), second.mask, second.weight) == ({}, None, 1.0)


def test_lists_of_controls_and_captions_are_taken_in_order(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png", "x.png", "y.png")
    row = {"image_file_name": "a.png", "caption": ["one", "two"], "control_file_names": ["y.png", "x.png"]}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")

    (record,) = MetadataFolder(tmp_path).read().records

    assert record.captions == ("one", "two")
    assert [path.name for path in record.controls["control"]] == ["y.png", "x.png"]


def test_the_caption_column_may_be_called_otherwise(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png")
    _csv(tmp_path, "file_name,text,prompt", "a.png,no,yes")

    assert MetadataFolder(tmp_path, caption_column="prompt").read().records[0].captions == ("yes",)
    with pytest.raises(DataError, match=r"has no column promt; did you mean 'prompt'.*it has file_name, text, prompt"):
        MetadataFolder(tmp_path, caption_column="promt").read()


def test_without_a_caption_the_remedy_lists_the_columns(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png")
    _csv(tmp_path, "file_name,prompt", "a.png,yes")

    (record,) = MetadataFolder(tmp_path).read().records

    assert record.captions == ()
    assert record.remedy == "fill in text or caption; the columns are file_name, prompt"


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("file,text", "has no column file_name; is it 'file'"),
        ("file_name;text", "commas separate columns"),
        ("file_name,text,caption", "has both a column text and a column caption"),
    ],
)
def test_a_table_with_wrong_columns_is_an_error_that_lists_them(tmp_path: Path, header: str, problem: str) -> None:
    _csv(tmp_path, header, "a.png,x,y" if header.count(",") == 2 else "a.png,x" if "," in header else "a.png;x")

    with pytest.raises(DataError, match=problem):
        MetadataFolder(tmp_path).read()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("gone.png,x,", "file_name names no file"),
        (",x,", "needs one file_name"),
        ("a.png,x,gone.png", "control_file_name names no file"),
        ("a.png,red, big,", "has 4 fields, the first line names 3"),
        ("metadata.csv,x,", ".csv is not read"),
    ],
)
def test_a_bad_row_is_an_issue_that_names_its_line_and_leaves_the_others(
    tmp_path: Path, line: str, problem: str
) -> None:
    _pictures(tmp_path, "a.png")
    _csv(tmp_path, "file_name,text,control_file_name", line, "a.png,good,")

    listing = MetadataFolder(tmp_path).read()

    assert [record.captions for record in listing.records] == [("good",)]
    assert [issue.message.startswith(problem) for issue in listing.issues] == [True]
    assert listing.issues[0].path.endswith("metadata.csv:2")


def test_what_nobody_reads_is_noted(tmp_path: Path) -> None:
    _pictures(tmp_path, "a.png", "forgotten.png", "depth.png")
    _csv(tmp_path, "file_name,captoin,depth_file_name", "a.png,x,depth.png")

    notes = [str(note).rpartition("/")[2] for note in MetadataFolder(tmp_path).read().notes]

    assert notes == [
        "metadata.csv:2: captoin is not read (hint: did you mean 'caption'? rows with it: 1)",
        "metadata.csv: column depth_file_name is not read "
        "(hint: call it control_file_name or mask_file_name to train with it)",
        "depth.png: no row names it (hint: add a row for it, or remove it)",
        "forgotten.png: no row names it (hint: add a row for it, or remove it)",
    ]


def test_two_tables_in_one_folder_are_an_error(tmp_path: Path) -> None:
    _csv(tmp_path, "file_name,text")
    (tmp_path / "metadata.jsonl").touch()

    with pytest.raises(DataError, match=r"holds metadata\.csv and metadata\.jsonl"):
        MetadataFolder(tmp_path).read()


@pytest.mark.parametrize("lines", [[], ["file_name,text"]])
def test_an_empty_table_is_an_error(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(DataError, match="its tables have no row"):
        MetadataFolder(_csv(tmp_path, *lines)).read()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        MetadataFolder(tmp_path / "nowhere").read()


def test_an_empty_caption_column_is_refused() -> None:
    with pytest.raises(ConfigError, match="caption_column: must not be empty"):
        MetadataFolder("a", caption_column="")
