"""Which conditioning pictures belong to which pictures, equal to the reference's later rule."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from musubi.data.sources.matching import Matches, Named, match_controls
from tests.parity.cases import vector_cases

_NUMBERED = re.compile(r"(?P<stem>.*)_(?P<number>\d+)")


@pytest.mark.parametrize("case", vector_cases("data_control_match"), ids=json.dumps)
def test_data_control_match(case: dict[str, Any]) -> None:
    expected, names = case["head"], [*case["images"], *case["controls"]]
    if any(Path(name).suffix not in {Path(name).suffix.lower(), Path(name).suffix.upper()} for name in names):
        pytest.skip("a defect of the reference: .Png is no picture for it on systems that tell capitals apart")
    if isinstance(expected, dict) and any(_loose(file, case["images"]) for file in case["controls"]):
        pytest.skip("a defect of the reference: a_b_0 is taken for a, though it may be of an a_b that is not there")

    matches = match_controls(_named(case["images"]), _named(case["controls"]))

    count = case["control_count"]
    if isinstance(expected, str):
        assert matches.issues or any(len(files) < (count or 1) for files in _found(matches, case["images"]).values())
        return
    assert not matches.issues
    found = _found(matches, expected)
    assert {name: _places(name, files[:count]) for name, files in found.items()} == {
        name: _places(name, files) for name, files in expected.items()
    }
    # Which of several files of one number comes first is left to the folder's order, as the vector's text says.
    assert all(set(expected[name]) <= set(files) for name, files in found.items())


def _named(names: Sequence[str]) -> list[Named]:
    """Return what is listed of names: neither lists hidden files."""
    listed = [Path(name) for name in names if not name.startswith(".")]
    return [named for path in listed if (named := Named.file(path)) is not None]


def _found(matches: Matches, names: Sequence[str] | Mapping[str, object]) -> dict[str, list[str]]:
    return {name: [path.name for path in matches.files.get(Path(name), ())] for name in names}


def _places(image: str, files: Sequence[str]) -> list[int]:
    """Return where the reference puts the files of a picture: its very name first, then by number."""
    numbers = [_NUMBERED.fullmatch(Path(file).stem) for file in files if Path(file).stem != Path(image).stem]
    return [0] * (len(files) - len(numbers)) + [int(found["number"]) + 1 for found in numbers if found is not None]


def _loose(file: str, images: Sequence[str]) -> bool:
    """Return whether a file is called like no picture, but like one, something else, and a number."""
    stems = {Path(image).stem for image in images}
    stem = Path(file).stem
    numbered = _NUMBERED.fullmatch(stem)
    if numbered is None or {stem, numbered["stem"]} & stems:
        return False
    return any(stem.startswith((f"{start}_", f"{start}.")) for start in stems)
