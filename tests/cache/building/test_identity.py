from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest

from musubi.architecture import Stage
from musubi.cache.building.identity import files_of
from musubi.cache.building.masks import MASK
from musubi.core.errors import DataError
from musubi.data.sample import Control, Item, Window
from musubi.testing.toy import Toy
from tests.cache.making import LATENTS, TEXT, an_item, identities
from tests.data.files import picture

SEEN = Stage(name="latents", components=("vae",), reads=("pixels", "controls"))


@pytest.fixture
def item(tmp_path: Path) -> Item:
    cat = picture(tmp_path / "cat.png", seed=1, caption=None)
    pose = picture(tmp_path / "pose.png", seed=2, caption=None)
    controls = {"control": (Control(path=pose, bucket=(32, 32)),)}
    return an_item(path=cat, kind="video", window=Window(0, 5), controls=controls, mask=pose)


def test_what_changes_the_pixels_changes_their_fingerprint_and_nothing_else_does(tmp_path: Path, item: Item) -> None:
    made = identities(tmp_path)
    other = picture(tmp_path / "other.png", seed=3, caption=None)
    copy = shutil.copy(item.path, tmp_path / "copy.png")
    first = made.of(LATENTS, item, None)

    equal: list[dict[str, Any]] = [
        {"path": copy, "name": "copy"},
        {"captions": ("x",), "dropout": 0.5},
        {"repeats": 3, "batch_size": 2, "weight": 0.5, "split": "validation"},
        {"controls": {}, "mask": None},
        {"picked": (0, 1, 2, 3, 4), "window": Window(7, 5)},
    ]
    for change in equal:
        assert made.of(LATENTS, attrs.evolve(item, **change), None) == first, change
    changes: list[dict[str, Any]] = [
        {"path": other},
        {"bucket": (32, 64)},
        {"window": Window(1, 5)},
        {"window": Window(0, 9)},
        {"picked": (0, 1, 1, 2, 3)},
    ]
    assert len({first, *(made.of(LATENTS, attrs.evolve(item, **change), None) for change in changes)}) == 6


def test_the_model_its_weights_and_the_precision_are_part_of_it(tmp_path: Path, item: Item) -> None:
    made = [
        identities(tmp_path),
        identities(tmp_path, Toy(seed=1)),
        identities(tmp_path, dtype="bfloat16"),
    ]

    assert len({identity.of(stage, item, "a") for identity in made for stage in (LATENTS, TEXT)}) == 6


def test_conditions_count_where_they_are_read(tmp_path: Path, item: Item) -> None:
    @attrs.frozen(kw_only=True)
    class Seeing(Toy):
        @property
        def stages(self) -> tuple[Stage, ...]:
            return (SEEN, TEXT)

    made = identities(tmp_path, Seeing())
    cat, pose = item.path, item.controls["control"][0].path
    controls = [
        (Control(path=pose, bucket=(32, 32)),),
        (Control(path=pose, bucket=(16, 32)),),
        (Control(path=cat, bucket=(32, 32)),),
        (Control(path=pose, bucket=(32, 32)), Control(path=cat, bucket=(32, 32))),
        (Control(path=cat, bucket=(32, 32)), Control(path=pose, bucket=(32, 32))),
    ]

    found = [made.of(SEEN, attrs.evolve(item, controls={"control": some}), None) for some in controls]
    moved = made.of(SEEN, attrs.evolve(item, controls={"other": controls[0]}), None)

    assert len({*found, moved}) == 6
    assert files_of(SEEN, item) == [cat, pose]
    assert files_of(TEXT, item) == []


def test_equal_captions_are_equal_whoever_has_them(tmp_path: Path, item: Item) -> None:
    made = identities(tmp_path)

    assert made.of(TEXT, item, "words") == made.of(TEXT, an_item("other"), "words")
    assert made.of(TEXT, item, "words") != made.of(TEXT, item, "Words")
    assert made.of(TEXT, item, "") != made.of(TEXT, item, " ")


def test_a_mask_counts_with_its_window_and_not_with_the_encoders_precision(tmp_path: Path, item: Item) -> None:
    made, other = identities(tmp_path), identities(tmp_path, Toy(seed=1), dtype="bfloat16")
    changes: list[dict[str, Any]] = [{}, {"window": Window(0, 9)}, {"mask": item.path}, {"size": (96, 64)}]

    assert made.of(MASK, item, None) == other.of(MASK, item, None)
    assert len({made.of(MASK, attrs.evolve(item, **change), None) for change in changes}) == 4
    assert files_of(MASK, item) == [item.mask]


def test_half_a_character_is_reported_with_its_item(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cat\.png: the caption holds half a character at place 3"):
        identities(tmp_path).of(TEXT, an_item(), "a \ud83d")


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        identities(tmp_path).of(LATENTS, an_item(path=tmp_path / "gone.png"), None)
