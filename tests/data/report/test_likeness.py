from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from musubi.data.media.resize import Pixels
from musubi.data.report.likeness import groups, near_duplicates, signature
from tests.data.files import pixels


def _resized(picture: Pixels, factor: float) -> Pixels:
    height, width = picture.shape[:2]
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _compressed(picture: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


def _brightened(picture: Pixels, factor: float) -> Pixels:
    return np.asarray(np.clip(picture * factor, 0, 255), np.uint8)


def _plain(red: int, green: int, blue: int) -> Pixels:
    return np.full((48, 64, 3), (red, green, blue), np.uint8)


def _disc(colour: tuple[int, int, int], background: tuple[int, int, int]) -> Pixels:
    y, x = np.mgrid[0:64, 0:64]
    inside = ((x - 24) ** 2 + (y - 36) ** 2 < 18**2)[:, :, None]
    return np.where(inside, colour, background).astype(np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: _resized(picture, 0.5),
        lambda picture: _resized(picture, 1.7),
        lambda picture: _compressed(picture, 40),
        lambda picture: _brightened(picture, 1.1),
        lambda picture: _brightened(picture, 0.88),
        lambda picture: _compressed(_resized(picture, 0.6), 60),
    ],
    ids=["halved", "enlarged", "compressed", "brighter", "darker", "smaller and compressed"],
)
@pytest.mark.parametrize("seed", range(5))
def test_a_changed_copy_looks_the_same(change: Callable[[Pixels], Pixels], seed: int) -> None:
    picture = pixels(320, 240, seed=seed)

    assert near_duplicates([("own", picture), ("copy", change(picture))]) == (("own", "copy"),)


def test_different_pictures_do_not_look_the_same() -> None:
    pictures = [(str(seed), pixels(160, 120, seed=seed)) for seed in range(40)]

    assert near_duplicates(pictures) == ()


def test_plain_pictures_are_told_apart_by_their_colour() -> None:
    pictures = [
        ("white", _plain(255, 255, 255)),
        ("red", _plain(220, 30, 30)),
        ("blue", _plain(30, 30, 220)),
        ("black", _plain(0, 0, 0)),
        ("nearly red", _plain(215, 36, 33)),
    ]

    assert near_duplicates(pictures) == (("red", "nearly red"),)


def test_a_plain_picture_is_not_like_one_that_shows_something() -> None:
    grey = _plain(127, 127, 127)

    assert near_duplicates([("grey", grey), ("picture", pixels(64, 48))]) == ()


def test_one_drawing_in_other_colours_is_another_picture() -> None:
    red, green = _disc((230, 40, 40), (250, 240, 210)), _disc((40, 150, 60), (250, 240, 210))

    assert near_duplicates([("red", red), ("green", green), ("red again", _resized(red, 2))]) == (("red", "red again"),)


def test_groups_follow_the_order_of_the_names_and_hold_each_once() -> None:
    one, other = pixels(160, 120, seed=1), pixels(160, 120, seed=2)
    pictures = [("c", one), ("a", other), ("b", _resized(one, 0.5)), ("d", _compressed(one, 60)), ("e", other)]

    assert near_duplicates(pictures) == (("c", "b", "d"), ("a", "e"))


def test_all_of_a_group_look_like_its_first_and_not_only_like_a_neighbour() -> None:
    own = signature(pixels(160, 120))
    steps = {f"{bits} bits": own ^ (2**bits - 1) for bits in (0, 3, 6, 9)}

    assert groups(steps, distance=6) == (("0 bits", "3 bits", "6 bits"),)


def test_a_larger_distance_takes_more_for_the_same() -> None:
    own = signature(pixels(160, 120))
    names = {"own": own, "other": own ^ 0b1111}

    assert groups(names, distance=3) == ()
    assert groups(names, distance=4) == (("own", "other"),)


@pytest.mark.parametrize("names", [[], ["only"]])
def test_few_pictures_make_no_group(names: list[str]) -> None:
    assert near_duplicates([(name, pixels(32, 32)) for name in names]) == ()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2), (4000, 8)])
def test_every_size_has_a_signature(size: tuple[int, int]) -> None:
    picture = pixels(*size)

    assert near_duplicates([("a", picture), ("b", picture.copy())]) == (("a", "b"),)


@pytest.mark.parametrize("alike", [False, True], ids=["all different", "all the same"])
def test_twenty_thousand_pictures_take_seconds(*, alike: bool) -> None:
    source = np.random.default_rng(0)
    seen = {str(i): int.from_bytes(source.bytes(200), "big") for i in range(20_000)}
    if alike:
        seen = dict.fromkeys(seen, seen["0"])

    started = time.perf_counter()
    found = groups(seen)

    assert [len(group) for group in found] == ([20_000] if alike else [])
    assert time.perf_counter() - started < 20
