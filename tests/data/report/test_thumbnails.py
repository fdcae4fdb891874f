from __future__ import annotations

from collections import Counter
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from musubi.architecture import Size
from musubi.data.report.thumbnails import spread, thumbnail
from musubi.data.sample import Item
from tests.data.files import clip, picture
from tests.data.scans import item

RED, BLUE = (250, 0, 0), (0, 0, 250)


def _striped(path: Path, *, size: Size, cut: int) -> Item:
    """Write a red picture whose outer ``cut`` columns are blue, and return it as an item that loses just those."""
    pixels = np.full((size[1], size[0], 3), BLUE, np.uint8)
    pixels[:, cut : size[0] - cut] = RED
    Image.fromarray(pixels).save(path)
    return attrs.evolve(item(size=size, bucket=(size[0] - 2 * cut, size[1])), path=path)


@pytest.mark.parametrize("side", [60, 120, 500])
def test_what_is_trained_is_clear_and_what_is_cut_away_is_faded(tmp_path: Path, side: int) -> None:
    one = _striped(tmp_path / "a.png", size=(120, 80), cut=20)

    pixels = thumbnail(one, side=side)

    assert pixels is not None
    scale = min(1.0, side / 120)
    assert pixels.shape == (round(80 * scale), round(120 * scale), 3)
    left, right = round(20 * scale), round(100 * scale)
    assert (pixels[:, left:right] == RED).all()
    assert (np.ptp(pixels[:, : left - 1].astype(int), axis=2) < 70).all()


def test_a_picture_that_loses_nothing_is_shown_as_it_is(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", size=(64, 48))

    pixels = thumbnail(attrs.evolve(item(size=(64, 48), bucket=(128, 96)), path=path), side=100)

    assert pixels is not None
    assert (pixels == np.asarray(Image.open(path))).all()


@pytest.mark.parametrize("size", [(900, 3), (3, 900)])
def test_an_absurd_shape_has_a_thumbnail(tmp_path: Path, size: Size) -> None:
    path = picture(tmp_path / "a.png", size=size)

    pixels = thumbnail(attrs.evolve(item(size=size, bucket=(64, 64)), path=path), side=100)

    assert pixels is not None
    assert min(pixels.shape[:2]) == 1
    assert max(pixels.shape[:2]) == 100


def test_a_clip_shows_the_first_frame_of_its_window(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", frames=9)
    one = attrs.evolve(item(frames=3, size=(64, 48), bucket=(64, 48)), path=path, picked=(5, 6, 7))

    pixels = thumbnail(one, side=64)

    assert pixels is not None
    assert pixels[:, :, 0].mean() == pytest.approx(100, abs=12)


def test_an_unreadable_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nonsense")

    assert thumbnail(item("a.png", folder=tmp_path), side=64) is None
    assert thumbnail(item("missing.png", folder=tmp_path), side=64) is None


def test_every_bucket_is_shown_before_one_is_shown_often() -> None:
    common = [item(f"{i}.png") for i in range(100)]
    rare = [item(f"rare{i}.png", bucket=(480, 16 * i)) for i in range(1, 4)]

    shown = spread(common + rare, 6)

    assert Counter(entry.bucket_label for entry in shown) == {"640x480": 3, "480x16": 1, "480x32": 1, "480x48": 1}
    assert [entry.media for entry in shown[:3]] == ["0.png", "33.png", "66.png"]


def test_the_largest_buckets_are_shown_where_there_is_no_room_for_all() -> None:
    items = [item(f"{i}_{n}.png", bucket=(16 * i, 480)) for i in range(1, 9) for n in range(i)]

    assert [entry.bucket_label for entry in spread(items, 3)] == ["128x480", "112x480", "96x480"]


def test_of_the_windows_of_a_clip_in_one_bucket_one_is_shown() -> None:
    one = item("a.mp4", frames=9)

    assert len(spread([one, attrs.evolve(one, name="again"), item("a.mp4", frames=25)], 10)) == 2


@given(counts=st.lists(st.integers(1, 12), max_size=8), most=st.integers(0, 40))
def test_as_many_as_possible_are_shown_and_none_twice(counts: list[int], most: int) -> None:
    items = [item(f"{i}_{n}.png", bucket=(16 * (i + 1), 480)) for i, count in enumerate(counts) for n in range(count)]

    shown = spread(items, most)

    assert len(shown) == min(most, len(items))
    assert len({entry.media for entry in shown}) == len(shown)
