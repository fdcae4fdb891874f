from __future__ import annotations

import json
from pathlib import Path

import attrs

from musubi.data.sample import Control, Item, Window
from musubi.training.dataset_facts import commonest_size, dataset_facts

PICTURE = Item(
    name="a",
    media="a",
    path=Path("stills/a.png"),
    kind="image",
    captions=("a",),
    size=(100, 100),
    bucket=(64, 64),
    repeats=4,
)
CLIP = attrs.evolve(PICTURE, kind="video", path=Path("/home/me/clips/b.mp4"), window=Window(0, 25), repeats=1)


def test_items_of_a_kind_a_batch_size_and_repeats_are_a_dataset() -> None:
    wide = attrs.evolve(PICTURE, bucket=(96, 48), controls={"control": (Control(path=Path("c.png"), bucket=(64, 64)),)})
    longer = attrs.evolve(CLIP, window=Window(0, 49), batch_size=1)

    pictures, clips = dataset_facts([PICTURE, PICTURE, wide, CLIP, longer])

    assert pictures == {
        "resolution": [64, 64],
        "batch_size_per_device": 1,
        "num_repeats": 4,
        "enable_bucket": True,
        "has_control": True,
        "num_items": 3,
        "buckets": {"64x64": 2, "96x48": 1},
        "image_directory": "stills",
    }
    assert (clips["target_frames"], clips["buckets"]) == ([25, 49], {"64x64x25": 1, "64x64x49": 1})


def test_no_path_is_told() -> None:
    told = json.dumps(dataset_facts([CLIP]))

    assert json.loads(told)[0]["video_directory"] == "clips"
    assert "home" not in told


def test_what_is_held_out_is_not_trained_on() -> None:
    held_out = attrs.evolve(PICTURE, split="validation", bucket=(32, 32))

    assert dataset_facts([held_out]) == []
    assert commonest_size([held_out]) is None
    assert commonest_size([held_out, held_out, PICTURE]) == (64, 64)
