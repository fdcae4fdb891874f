from __future__ import annotations

from pathlib import Path

from musubi.data.report.facts import facts, fate
from musubi.data.report.places import Places
from musubi.data.report.summary import Summary
from musubi.data.sample import Control, Item
from tests.data.scans import item, scan


def _facts(*items: Item) -> dict[str, str]:
    found = scan(*items)
    return dict(facts(Summary.of(found), Places.of(found)))


def test_an_ordinary_scan_says_only_what_matters() -> None:
    assert _facts(item("a.png"), item("b.png")) == {
        "files": "2 pictures",
        "training": "2 items; in an epoch 2 samples, 2 batches",
        "sizes": "640x480",
        "cut away": "nothing",
        "captions": "2 of 5 words (median 5), 14 characters",
    }


def test_whatever_is_there_is_said() -> None:
    control = Control(path=Path("c.png"), bucket=(64, 64))
    told = _facts(
        item("a.png", size=(320, 160), repeats=3, batch_size=2, controls={"control": (control, control)}),
        item("b.png", caption=("", "x"), split="validation", mask=Path("m.png"), dropout=0.1),
        item("c.mp4", frames=25, weight=0.5),
    )

    assert told["files"] == "2 pictures, 1 clip"
    assert told["training"] == "2 items; in an epoch 4 samples (repeated 1 to 3 times), 3 batches of up to 2"
    assert told["validation"] == "1 item (33%)"
    assert told["sizes"] == "320x160 (pictures/a.png) to 640x480 (pictures/c.mp4)"
    assert told["cut away"] == "11% of a picture on average; most of pictures/a.png 33%"
    assert told["enlarged"] == "1 file, up to 3.00 times (pictures/a.png)"
    assert told["captions"] == (
        "4 of 1 to 5 words (median 5), 1 to 14 characters; 1 file with more than one; 1 blank; left out in 10% of draws"
    )
    assert (told["controls"], told["masks"], told["weights"]) == ("1 item, 2 each", "1 item", "0.5 for 1 item")


def test_captions_that_are_all_blank_have_no_lengths() -> None:
    assert _facts(item(caption=""))["captions"] == "1; 1 blank"


def test_nothing_found_has_no_facts() -> None:
    assert _facts() == {}


def test_the_fate_of_a_picture_is_its_bucket_and_what_is_done_to_it() -> None:
    assert fate(item()) == "640x480"
    assert fate(item(frames=25, size=(320, 160))) == "640x480x25, 33% cut, enlarged 3.00x"
