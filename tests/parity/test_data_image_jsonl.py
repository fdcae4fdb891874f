"""Which picture, captions and controls a row of a JSONL file has, the latter in order, equal to the reference's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from musubi.data.sources.rows import Jsonl
from tests.data.files import picture
from tests.parity.cases import vector_cases

_DEFECT = "a defect of the reference: "


@pytest.mark.parametrize("case", vector_cases("data_image_jsonl"), ids=json.dumps)
def test_data_image_jsonl(case: dict[str, Any], tmp_path: Path) -> None:
    lines = [_line(row) for row in case["rows_in"]]
    if not any(line.strip() for line in lines):
        pytest.skip(_DEFECT + "a file without rows trains on nothing; ours says so")
    result = case["result"]
    defect = _defect(lines, result)
    if defect is not None:
        pytest.skip(_DEFECT + defect)

    found = _ours(tmp_path, lines, case["control_count"])

    assert found == ("issues" if isinstance(result, str) else [_theirs(row) for row in result["rows"]])


def _defect(lines: Sequence[str], result: object) -> str | None:
    """Return which defect of the reference decides the result of a file, if one does."""
    rows = [row for row in map(_row, lines) if row is not None]
    if all(_row(line) is not None for line in lines if line.strip()) and not all(line.strip() for line in lines):
        return "a blank line ends the run; ours passes it over"
    if not all(_is_text(row.get("image_path")) for row in rows):
        return "a row without a picture is taken; ours names it"
    if not all(_is_text(row[key]) for row in rows for key in _control_keys(row)):
        return "a control that is empty or no path counts as one; ours has none, or names it"
    if not all(isinstance(row.get("caption"), str | list | None) for row in rows):
        return "a caption that is no text is taken; ours names it"
    if any(len(_pairs(line)) > len(row) for line in lines if (row := _row(line)) is not None):
        return "of a field that is given twice the first is lost; ours names it"
    if isinstance(result, dict) and any(map(_loses, rows, result["rows"])):
        return "of two controls of number 0 one is lost; ours takes both"
    return None


def _line(row: object) -> str:
    return row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)


def _row(line: str) -> dict[str, Any] | None:
    """Return the row that a line holds, if it holds one."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _pairs(line: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = json.loads(line, object_pairs_hook=list)
    return pairs


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _control_keys(row: Mapping[str, object]) -> list[str]:
    return [key for key in row if key == "control_path" or key.startswith("control_path_")]


def _loses(row: Mapping[str, object], result: Mapping[str, object]) -> bool:
    """Return whether a control vanishes, other than ``control_path_0`` beside ``control_path``, which stands for it."""
    given = set(_control_keys(row)) - ({"control_path_0"} if "control_path" in row else set())
    return len(_control_keys(result)) < len(given)


def _ours(folder: Path, lines: Sequence[str], count: int | None) -> object:
    """Return what each row holds, or that there is an issue: what a dataset with so many controls would drop."""
    for name in {name for line in lines for name in _files(_row(line) or {})}:
        picture(folder / name, caption=None)
    moved = "\n".join(lines).replace('"/', f'"{folder.as_posix()}/')  # /a.png is a.png in the folder
    (folder / "rows.jsonl").write_text(moved, encoding="utf-8")
    listing = Jsonl(folder / "rows.jsonl").read()
    controls = [[path.name for path in record.controls.get("control", ())] for record in listing.records]
    if listing.issues or (any(controls) and count is not None and any(len(names) < count for names in controls)):
        return "issues"
    return [
        (record.path.name, list(record.captions), names)
        for record, names in zip(listing.records, controls, strict=True)
    ]


def _files(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the files of a row."""
    yield from (row[key].removeprefix("/") for key in row if "_path" in key and _is_text(row[key]))


def _theirs(row: Mapping[str, Any]) -> tuple[str, list[str], list[str]]:
    """Return what a row holds: its picture, its captions and its controls; ours takes a list of captions, too."""
    keys = sorted(_control_keys(row), key=lambda key: int(key.rpartition("_")[2]))
    captions = row.get("caption")
    texts = [captions] if isinstance(captions, str) else captions or []
    return Path(row["image_path"]).name, [text.strip() for text in texts], [Path(row[key]).name for key in keys]
