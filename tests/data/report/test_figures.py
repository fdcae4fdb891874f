from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from musubi.core.errors import ConfigError
from musubi.data.report.figures import contact_sheet, histogram
from musubi.data.report.summary import Summary
from musubi.data.sample import Item
from tests.data.files import clip, picture
from tests.data.scans import item, scan


def _histogram(*items: Item) -> Figure:
    return histogram(Summary.of(scan(*items)).buckets)


def _drawn(figure: Figure) -> bytes:
    """Draw a figure as a notebook does; a warning would be an error."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return file.getvalue()


def _bars(figure: Figure) -> list[tuple[float, float]]:
    """Return where each bar begins and how long it is."""
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    return [(bar.get_x(), bar.get_width()) for bar in bars]


def _labels(figure: Figure) -> list[str]:
    figure.draw_without_rendering()
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def _extent(text: Text) -> Bbox:
    return text.get_window_extent()


def test_each_bucket_has_a_bar_as_long_as_its_items_the_largest_on_top() -> None:
    figure = _histogram(item("a.png", bucket=(64, 64)), item("b.png"), item("c.png"), item("d.mp4", frames=9))

    assert _bars(figure) == [(0, 2), (0, 1), (0, 1)]
    assert _labels(figure) == ["640x480", "640x480x9", "64x64"]
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > top


def test_held_out_items_stand_on_those_trained_on() -> None:
    figure = _histogram(item("a.png"), item("b.png"), item("c.png", split="validation"), item("d.png", bucket=(64, 64)))

    assert _bars(figure) == [(0, 2), (0, 1), (2, 1), (1, 0)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["training", "validation"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1"]


def test_a_histogram_of_training_items_alone_needs_no_legend() -> None:
    assert not _histogram(item()).legends


@pytest.mark.parametrize("number", [1, 2, 20, 60])
def test_labels_do_not_touch_one_another(number: int) -> None:
    figure = _histogram(*(item(f"{i}.png", bucket=(16 * (i + 10), 480)) for i in range(number)))

    _drawn(figure)
    boxes = sorted((box.y0, box.y1) for box in map(_extent, figure.axes[0].get_yticklabels()))

    assert len(boxes) == number
    assert all(lower[1] <= upper[0] for lower, upper in pairwise(boxes))


def test_too_many_buckets_are_added_up_and_no_item_is_lost() -> None:
    figure = _histogram(*(item(f"{i}.png", bucket=(16 * (i + 1), 480)) for i in range(200)))

    assert len(_bars(figure)) == 60
    assert _bars(figure)[-1] == (0, 141)
    assert _labels(figure)[-1] == "141 others"
    assert figure.axes[0].get_title() == "200 items in 200 buckets"


def test_nothing_found_is_an_empty_histogram() -> None:
    figure = _histogram()

    assert _drawn(figure)
    assert figure.axes[0].get_title() == "0 items in 0 buckets"


def test_the_sheet_shows_each_picture_with_its_caption_and_its_fate(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(64, 48))
    clip(tmp_path / "b.mp4", frames=9)
    items = [
        item("a.png", folder=tmp_path, size=(64, 48), bucket=(48, 48), caption="a cat"),
        item("b.mp4", folder=tmp_path, size=(64, 48), bucket=(64, 48), caption="a dog", frames=5),
    ]

    figure = contact_sheet(items, columns=2, rows=2)

    assert [axes.get_title() for axes in figure.axes] == ["a cat\n48x48, 25% cut", "a dog\n64x48x5"]
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [[], ["5 frames"]]
    assert [np.asarray(axes.images[0].get_array()).shape for axes in figure.axes] == [(48, 64, 3), (48, 64, 3)]
    assert _drawn(figure)


def test_an_unreadable_picture_keeps_its_place_and_is_marked(tmp_path: Path) -> None:
    figure = contact_sheet([item("missing.png", folder=tmp_path)], columns=2, rows=2)

    assert [text.get_text() for text in figure.axes[0].texts] == ["cannot be read"]


def test_a_sheet_of_one_bucket_shows_no_other(tmp_path: Path) -> None:
    items = [item("a.png", folder=tmp_path), item("b.png", folder=tmp_path, bucket=(64, 64))]

    figure = contact_sheet(items, columns=2, rows=2, bucket="64x64")

    assert [axes.get_title().splitlines()[1] for axes in figure.axes] == ["64x64, 25% cut"]


def test_an_unknown_bucket_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean '640x480'"):
        contact_sheet([item()], columns=2, rows=2, bucket="640x481")


def test_a_sheet_without_columns_is_refused() -> None:
    with pytest.raises(ConfigError, match="columns: must be a whole number of at least 1, got 0"):
        contact_sheet([item()], columns=0, rows=2)


def test_a_sheet_is_no_larger_than_what_it_shows() -> None:
    width, height = contact_sheet([item()], columns=6, rows=4).get_size_inches()

    assert width < 3
    assert height < 3


@pytest.mark.parametrize("caption", ["$x", r"$\frac{", "猫が歩く\x00", "a\nb", "\udcff", ""])
def test_any_caption_can_be_drawn(tmp_path: Path, caption: str) -> None:
    assert _drawn(contact_sheet([item(folder=tmp_path, caption=caption)], columns=1, rows=1))


def test_nothing_found_is_an_empty_sheet() -> None:
    assert not contact_sheet([], columns=6, rows=4).axes
