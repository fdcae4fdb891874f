from __future__ import annotations

import json
from pathlib import Path

import pytest

from musubi import EveryFrame, Folder
from musubi.architecture import Geometry
from musubi.core.errors import DataError
from musubi.core.events import Event, Progress
from musubi.data.dataset import Dataset
from musubi.data.scan import scan
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

    scan = Dataset.from_folder(tmp_path, resolution=64, frames=(5, 9), rate=EveryFrame()).scan()

    assert [item.name for item in scan.items] == ["good"]
    dropped = {Path(issue.path).name: issue for issue in scan.dropped}
    assert set(dropped) == {"bare.png", "broken.png", "short.mp4"}
    assert dropped["short.mp4"].hint == "has 3 frames, wanted are 5, 9; add a shorter length, or keep_short=True"


def test_required_controls_are_asked_for_and_given_ones_are_kept(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [{"image_path": "a.png", "caption": "x", "control_path": "a.png"}, {"image_path": "a.png", "caption": "y"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = Dataset.from_jsonl(path, resolution=64)

    assert len(dataset.scan()) == 2
    scan = dataset.with_control(required=True).scan()

    assert [item.captions for item in scan.items] == [("x",)]
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


def test_a_share_of_the_files_is_held_out_and_windows_stay_together(tmp_path: Path) -> None:
    for name in "abcdefgh":
        clip(tmp_path / f"{name}.mp4", frames=9)

    scan = Dataset.from_folder(tmp_path, resolution=64, frames=(1, 5)).with_validation(share=0.25).scan()

    held_out = {item.media for item in scan.items if item.split == "validation"}
    assert len(held_out) == 2
    assert all((item.media in held_out) == (item.split == "validation") for item in scan.items)


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_a_folder_is_held_out_wherever_it_lies(tmp_path: Path, place: str) -> None:
    train = tmp_path / "train"
    held_out = {"inside": train / "val", "beside": tmp_path / "val"}[place]
    held_out.mkdir(parents=True)
    train.mkdir(exist_ok=True)
    picture(train / "a.png")
    picture(held_out / "b.png", seed=1)

    dataset = Dataset.from_folder(train, resolution=64, recursive=True).with_validation(folder=held_out)

    assert {item.name: item.split for item in dataset.scan().items} == {"a": "train", "b": "validation"}


@pytest.mark.parametrize("both", [True, False], ids=["both hold out", "one holds out"])
def test_a_file_that_is_held_out_is_held_out_of_every_dataset_that_lists_it(tmp_path: Path, both: bool) -> None:
    for seed, name in enumerate("abcdefgh"):
        picture(tmp_path / f"{name}.png", seed=seed)
    large = Dataset.from_folder(tmp_path, resolution=64).with_validation(share=0.25)
    small = large.replace(resolution=(32, 32), validation=large.validation if both else None)

    found = scan([large, small], progress=False).items

    split = {kind: {item.path for item in found if item.split == kind} for kind in ("train", "validation")}
    alone = {item.path for item in large.scan().items if item.split == "validation"}
    assert split["validation"] == alone
    assert len(split["train"]) == 6
    assert not split["train"] & split["validation"]


def test_a_held_out_folder_is_held_out_of_a_dataset_without_the_rule(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "val").mkdir()
    picture(tmp_path / "val" / "b.png", seed=1)
    dataset = Dataset.from_folder(tmp_path, resolution=64, recursive=True)

    found = scan([dataset, dataset.with_validation(folder=tmp_path / "val")], progress=False).items

    assert {item.path.name: item.split for item in found} == {"a.png": "train", "b.png": "validation"}


def test_a_thorough_scan_finds_what_headers_do_not_tell(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(96, 96), seed=3)
    picture(tmp_path / "again.jpg", size=(96, 96), seed=3)
    picture(tmp_path / "other.png", size=(96, 96), seed=4)
    damaged = picture(tmp_path / "torn.png", size=(256, 256), seed=5)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-2000] + bytes(1000) + content[-1000:])
    dataset = Dataset.from_folder(tmp_path, resolution=64)

    quick, thorough = dataset.scan(), dataset.scan(thorough=True)

    assert (len(quick), quick.dropped, quick.notes) == (4, (), ())
    assert [item.name for item in thorough.items] == ["a", "again", "other"]
    assert [Path(issue.path).name for issue in thorough.dropped] == ["torn.png"]
    assert [(Path(note.path).name, note.message) for note in thorough.notes] == [("again.jpg", "near-duplicate")]


def test_a_thorough_scan_looks_into_conditioning_files_and_masks(tmp_path: Path) -> None:
    for name in ("good.png", "bad.png", "worse.png"):
        picture(tmp_path / name)
        for place in ("control", "masks"):
            (tmp_path / place).mkdir(exist_ok=True)
            picture(tmp_path / place / name, size=(256, 192), seed=5)
    for torn in (tmp_path / "control" / "bad.png", tmp_path / "masks" / "worse.png"):
        torn.write_bytes(torn.read_bytes()[:9000])
    source = Folder(tmp_path, control=tmp_path / "control", masks=tmp_path / "masks")
    dataset = Dataset(sources=(source,), resolution=64)

    quick, thorough = dataset.scan(), dataset.scan(thorough=True)

    assert (len(quick), quick.dropped) == (3, ())
    assert [item.name for item in thorough.items] == ["good"]
    assert len(thorough.dropped) == 2
