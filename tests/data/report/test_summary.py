from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.data.report.summary import Span, Summary, cut_share, enlargement
from musubi.data.sample import Control
from tests.data.scans import item, scan

sides = st.integers(1, 4_000)


def _controls(*buckets: tuple[int, int]) -> dict[str, tuple[Control, ...]]:
    return {"control": tuple(Control(path=Path("c.png"), bucket=bucket) for bucket in buckets)}


def test_buckets_come_largest_first_with_what_is_in_them() -> None:
    found = scan(
        item("a.png", size=(320, 240)),
        item("b.png", split="validation"),
        item("c.png", repeats=3),
        item("d.mp4", frames=25, bucket=(832, 480), size=(832, 480)),
    )

    still, clip = Summary.of(found).buckets

    assert (still.label, still.items, still.train, still.validation, still.samples) == ("640x480", 3, 2, 1, 4)
    assert (still.enlarged, still.enlargement) == (1, 2.0)
    assert (clip.label, clip.items, clip.enlarged, clip.enlargement) == ("832x480x25", 1, 0, 1.0)
    assert still.aspect == pytest.approx(4 / 3)


def test_batches_count_repeats_and_leave_out_what_is_held_out() -> None:
    found = scan(
        *(item(f"{i}.png", repeats=3, batch_size=4) for i in range(3)),
        *(item(f"v{i}.png", split="validation", batch_size=4) for i in range(8)),
    )

    summary = Summary.of(found)

    assert (summary.samples, summary.batches, summary.train, summary.validation) == (9, 3, 3, 8)


def test_items_whose_conditions_differ_in_size_or_number_share_no_batch() -> None:
    found = scan(
        item("a.png", batch_size=4),
        item("b.png", batch_size=4, controls=_controls((64, 64))),
        item("c.png", batch_size=4, controls=_controls((64, 64), (64, 64))),
        item("d.png", batch_size=4, controls=_controls((64, 32))),
        item("e.png", batch_size=4, controls=_controls((64, 64))),
    )

    assert Summary.of(found).batches == 4


def test_a_clip_with_several_windows_is_one_file() -> None:
    found = scan(*(item("a.mp4", frames=frames, size=(700, 480)) for frames in (1, 25, 49)), item("b.png"))

    summary = Summary.of(found)

    assert (summary.pictures, summary.clips) == (1, 1)
    assert [file.path.name for file in summary.cut] == ["a.mp4", "b.png"]
    assert summary.captions.count == 2


def test_the_worst_cut_comes_first() -> None:
    found = scan(item("fits.png"), item("wide.png", size=(1280, 480)), item("tall.png", size=(640, 600)))

    summary = Summary.of(found)

    assert [(file.path.name, round(file.value, 3)) for file in summary.cut] == [
        ("wide.png", 0.5),
        ("tall.png", 0.2),
        ("fits.png", 0.0),
    ]
    assert summary.mean_cut == pytest.approx(0.7 / 3)


def test_sizes_are_ordered_by_area() -> None:
    found = scan(
        item("big.png", size=(4000, 3000)), item("thin.png", size=(3000, 10)), item("small.png", size=(99, 99))
    )

    assert [(path.name, size) for path, size in Summary.of(found).sizes] == [
        ("small.png", (99, 99)),
        ("thin.png", (3000, 10)),
        ("big.png", (4000, 3000)),
    ]


def test_caption_figures_leave_blank_ones_out_of_the_lengths() -> None:
    found = scan(
        item("a.png", caption=("one", "two words")),
        item("b.png", caption=" "),
        item("c.png", caption="here are four words", dropout=0.1),
    )

    captions = Summary.of(found).captions

    assert (captions.count, captions.several, captions.blank, captions.dropout) == (4, 1, 1, 0.1)
    assert captions.words == Span(1, 2, 4)
    assert captions.characters == Span(3, 9, 19)


def test_conditions_masks_and_weights_are_counted() -> None:
    found = scan(
        item("a.png", controls=_controls((64, 64), (64, 64)), mask=Path("m.png")),
        item("b.png", controls=_controls((64, 64)), weight=0.5),
        item("c.png"),
    )

    summary = Summary.of(found)

    assert (summary.controls, summary.masks, summary.weights) == ((2, 1), 1, (0.5,))


def test_nothing_found_has_figures_too() -> None:
    summary = Summary.of(scan())

    assert (summary.buckets, summary.samples, summary.batches, summary.mean_cut) == ((), 0, 0, 0.0)
    assert (summary.captions.words, summary.repeats, summary.batch_size) == (None, (1, 1), 1)


@given(width=sides, height=sides, across=sides, down=sides)
def test_a_crop_keeps_something_and_an_enlargement_fills_the_bucket(
    width: int, height: int, across: int, down: int
) -> None:
    one = item(size=(width, height), bucket=(across, down))

    assert 0 <= cut_share(one) < 1
    assert enlargement(one) * width >= across * (1 - 1e-9)
    assert enlargement(one) * height >= down * (1 - 1e-9)
