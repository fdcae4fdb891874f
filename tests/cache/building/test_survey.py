from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from musubi.architecture import Roles
from musubi.cache.building.memory import FileMemory
from musubi.cache.building.survey import survey
from musubi.core.errors import DataError
from musubi.data.dataset import Dataset
from musubi.testing.toy import Toy
from tests.data.files import picture


@attrs.frozen(kw_only=True)
class Editing(Toy):
    @property
    def roles(self) -> Roles:
        return Roles(required=("control",))


def test_items_that_lack_what_the_model_needs_are_named(tmp_path: Path, media: Path) -> None:
    picture(media / "pose.png", caption=None)
    rows = [{"image_path": f"{name}.png", "caption": name} for name in ("cat", "cow")]
    rows[0]["control_path"] = "pose.png"
    (media / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = Dataset.from_jsonl(media / "rows.jsonl", resolution=64)

    found = survey([dataset], Editing(), memory=FileMemory(tmp_path))

    assert [item.name for item in found.items] == ["cat"]
    assert [(Path(issue.path).name, issue.message) for issue in found.problems] == [("cow.png", "control missing")]


def test_without_a_usable_item_all_problems_are_raised(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(DataError) as caught:
        survey([dataset], Editing(), memory=FileMemory(tmp_path))

    assert len(caught.value.issues) == 6


def test_sizes_are_those_that_the_model_allows(tmp_path: Path, dataset: Dataset) -> None:
    found = survey([dataset], Toy(), memory=FileMemory(tmp_path))

    assert {item.bucket for item in found.items} == {(64, 64), (80, 48)}


def test_the_fingerprint_is_that_of_all_datasets_in_their_order(tmp_path: Path, dataset: Dataset) -> None:
    memory = FileMemory(tmp_path)
    several = [[dataset], [dataset.repeat(2)], [dataset, dataset.repeat(2)], [dataset.repeat(2), dataset]]

    prints = [survey(datasets, Toy(), memory=memory).fingerprint for datasets in several]

    assert len(set(prints)) == 4
    assert prints[0] == dataset.with_geometry(Toy().geometry).fingerprint()


def test_conditions_that_a_model_does_not_look_at_are_noted(tmp_path: Path, media: Path) -> None:
    row = {"image_path": "cat.png", "caption": "a cat", "control_path": "cow.png"}
    (media / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    dataset = Dataset.from_jsonl(media / "rows.jsonl", resolution=64)

    (note,) = survey([dataset], Toy(), memory=FileMemory(tmp_path)).notes

    assert (Path(note.path).name, note.message) == ("cat.png", "control is not used")
