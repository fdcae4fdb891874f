from __future__ import annotations

import json
from pathlib import Path

import pytest

from musubi.architecture import Geometry
from musubi.core.errors import DataError
from musubi.core.events import Event, Progress
from musubi.data.dataset import Dataset
from tests.data.files import clip, picture


def test_pictures_are_one_item_and_clips_one_for_each_length_that_fits(tmp_path: Path) -> None:
    picture(tmp_path / "cat.png", size=(64, 64))
    clip(tmp_path / "dog.mp4", frames=9, size=(128, 64))

    scan = Dataset.from_folder(tmp_path, resolution=64, frames=(1, 5, 25)).repeat(3).scan()

    assert [item.name for item in scan.items] == ["cat", "dog_00000-001", "dog_00000-005"]
    assert scan.buckets == {"64x64": 1, "80x48x1": 1, "80x48x5": 1}
    assert {item.repeats for item in scan.items} == {3}
    assert not scan.dropped


def test_good_files_are_kept_and_every_bad_one_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "good.png")
    picture(tmp_path / "bare.png", caption=None)
    (picture(tmp_path / "broken.png")).write_bytes(b"nonsense")
    clip(tmp_path / "short.mp4", frames=3)

    scan = Dataset.from_folder(tmp_path, resolution=64, frames=(5, 9)).scan()

    assert [item.name for item in scan.items] == ["good"]
    dropped = {Path(issue.path).name: issue for issue in scan.dropped}
    assert set(dropped) == {"bare.png", "broken.png", "short.mp4"}
    assert dropped["short.mp4"].hint == "has 3 frames, wanted are 5, 9; add a shorter length to frames"


def test_required_controls_are_asked_for_and_given_ones_are_kept(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [{"image_path": "a.png", "caption": "x", "control_path": "a.png"}, {"image_path": "a.png", "caption": "y"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = Dataset.from_jsonl(path, resolution=64)

    assert len(dataset.scan()) == 2
    scan = dataset.with_control(required=True).scan()

    assert [item.caption for item in scan.items] == ["x"]
    assert [issue.message for issue in scan.dropped] == ["control missing"]


def test_equal_stems_become_items_of_different_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "a.jpg", tmp_path / "sub" / "a.png"):
        picture(path)

    items = Dataset.from_folder(tmp_path, resolution=64, recursive=True).scan().items

    assert len({item.name for item in items}) == 3
    assert all(item.name.startswith("a-") for item in items)


def test_a_picture_named_like_a_window_keeps_a_name_of_its_own(tmp_path: Path) -> None:
    picture(tmp_path / "dog_00000-001.png")
    clip(tmp_path / "dog.mp4", frames=1)

    items = Dataset.from_folder(tmp_path, resolution=64).scan().items

    assert len({item.name for item in items}) == 2


def test_a_picture_smaller_than_a_step_is_reported_without_upscaling(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(100, 9))

    (issue,) = Dataset.from_folder(tmp_path, resolution=64, no_upscale=True).scan().dropped

    assert issue.message == "too small"


def test_an_architecture_of_single_pictures_reports_clips(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    clip(tmp_path / "b.mp4")

    scan = Dataset.from_folder(tmp_path, resolution=64, geometry=Geometry(video=False)).scan()

    assert [issue.message for issue in scan.dropped] == ["clips are not trained"]


def test_the_scan_tells_its_progress(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    heard: list[Event] = []

    Dataset.from_folder(tmp_path, resolution=64).scan(on=[heard.append])

    assert heard == [Progress(task="scan", done=n, total=2, detail=name) for n, name in ((1, "a"), (2, "b"))]


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read folder"):
        Dataset.from_folder(tmp_path / "gone", resolution=64).scan()
