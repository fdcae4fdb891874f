from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from musubi import Captions, Dataset, EveryFrame, Folder, OwnSize, Resample
from musubi.architecture import Geometry
from musubi.core.errors import DataError, Issue
from musubi.data.items import find_items
from musubi.data.sample import Control, Probe, Record, Window

STILL = Probe(kind="image", size=(800, 600))
CLIP = Probe(kind="video", size=(640, 480), frames=60, fps=30.0)


@attrs.frozen
class Known:
    """Files whose content is known without looking."""

    probes: Mapping[str, Probe]

    def probe(self, path: Path) -> Probe:
        return self.probes[path.name]


def dataset(**options: object) -> Dataset:
    fields = {"sources": (Folder("x"),), "resolution": 64, "geometry": Geometry(fps=15.0), **options}
    return Dataset(**fields)  # type: ignore[arg-type]


def record(name: str = "a.png", **options: object) -> Record:
    return Record(path=Path(name), place=name, **{"captions": ("a cat",), **options})  # type: ignore[arg-type]


FILES = Known({"a.png": STILL, "c.mp4": CLIP, "wide.png": attrs.evolve(STILL, size=(800, 300)), "b.png": STILL})


def reasons(dataset: Dataset, record: Record) -> list[str]:
    with pytest.raises(DataError) as caught:
        find_items(dataset, record, "a", FILES)
    return [issue.message for issue in caught.value.issues]


def test_an_item_carries_what_its_record_and_its_dataset_say() -> None:
    rules = dataset(repeats=3, batch_size=2, captions=Captions(trigger="zuzu", dropout=0.1))

    (item,) = find_items(rules, record(weight=0.5, mask=Path("b.png")), "a", FILES).items

    assert (item.name, item.bucket, item.repeats, item.batch_size) == ("a", (64, 64), 3, 2)
    assert (item.captions, item.dropout) == (("zuzu, a cat",), 0.1)
    assert (item.weight, item.mask) == (0.5, Path("b.png"))


def test_a_clip_is_cut_as_it_plays_at_the_models_rate() -> None:
    items = find_items(dataset(frames=(1, 5)), record("c.mp4"), "c", FILES).items

    assert [item.name for item in items] == ["c_00000-001", "c_00000-005"]
    assert items[1].frames == (0, 2, 4, 6, 8)
    assert items[0].picked == ()


def test_a_clip_taken_frame_by_frame_lists_no_frames() -> None:
    (item,) = find_items(dataset(frames=5, rate=EveryFrame()), record("c.mp4"), "c", FILES).items

    assert (item.window, item.picked, item.frames) == (Window(0, 5), (), (0, 1, 2, 3, 4))


def test_a_changed_rate_is_noted() -> None:
    (note,) = find_items(dataset(frames=5, rate=Resample(fps=60)), record("c.mp4"), "c", FILES).notes

    assert note.message == "retimed"
    assert note.hint == "plays at 30 fps, is trained at 60; frames are shown twice"


def test_a_short_clip_is_reported_in_the_frames_it_has_at_the_models_rate() -> None:
    with pytest.raises(DataError) as caught:
        find_items(dataset(frames=81), record("c.mp4"), "c", FILES)

    (issue,) = caught.value.issues
    assert issue.message == "too short"
    assert "has 30 frames at 15 fps, wanted are 81" in issue.hint


def test_a_short_clip_can_be_kept_at_its_longest_legal_length() -> None:
    (item,) = find_items(dataset(frames=81, keep_short=True), record("c.mp4"), "c", FILES).items

    assert item.window == Window(0, 29)


def test_a_missing_caption_is_reported_with_its_remedy_or_made_blank() -> None:
    bare = record(captions=(), remedy="write a.txt beside it")

    assert reasons(dataset(), bare) == ["caption is missing"]
    (item,) = find_items(dataset(captions=Captions(missing="blank")), bare, "a", FILES).items
    assert item.captions == ("",)


def test_an_empty_caption_and_an_enlarged_picture_are_noted() -> None:
    notes = find_items(dataset(resolution=1024), record(captions=(" ",)), "a", FILES).notes

    assert [note.message for note in notes] == ["enlarged", "caption is empty"]


def test_controls_have_the_targets_size_unless_the_dataset_says_otherwise() -> None:
    pair = record(controls={"control": (Path("wide.png"),)})

    (like,) = find_items(dataset(), pair, "a", FILES).items
    (own,) = find_items(dataset(control_size=OwnSize()), pair, "a", FILES).items

    assert like.controls == {"control": (Control(path=Path("wide.png"), bucket=like.bucket),)}
    assert own.controls == {"control": (Control(path=Path("wide.png"), bucket=(800, 288)),)}


@pytest.mark.parametrize("what", ["control", "mask"])
def test_a_control_or_mask_that_cannot_be_read_is_told_of_its_item(what: str) -> None:
    class Unreadable:
        def probe(self, path: Path) -> Probe:
            if path.name != "a.png":
                raise DataError("cannot read", [Issue("masks/b.png", "is empty", "copy it again")])
            return STILL

    given = record(mask=Path("b.png")) if what == "mask" else record(controls={"control": (Path("b.png"),)})

    with pytest.raises(DataError) as caught:
        find_items(dataset(), given, "a", Unreadable())

    assert caught.value.issues == (Issue("a.png", f"{what} is empty", "masks/b.png: copy it again"),)


def test_as_many_controls_as_wanted_are_taken_and_fewer_are_reported() -> None:
    two = record(controls={"control": (Path("b.png"), Path("wide.png"))})

    (item,) = find_items(dataset(control_count=1), two, "a", FILES).items

    assert [control.path.name for control in item.controls["control"]] == ["b.png"]
    assert reasons(dataset(control_count=3), two) == ["too few controls"]
    assert reasons(dataset(control="required"), record()) == ["control missing"]


def test_a_mask_of_another_shape_is_reported() -> None:
    assert reasons(dataset(), record(mask=Path("wide.png"))) == ["mask has another shape"]


def test_a_clip_is_no_condition_of_a_picture() -> None:
    assert reasons(dataset(), record(mask=Path("c.mp4"))) == ["mask is a clip"]
    assert reasons(dataset(), record(controls={"control": (Path("c.mp4"),)})) == ["control is a clip"]
