from __future__ import annotations

from typing import Any

import pytest

from musubi import Geometry, LikeTarget, NearArea, OwnSize, compat


def table(**values: Any) -> compat.ReferenceImages:
    return compat.ReferenceImages(**{"architecture": "qie", "image_jsonl_file": "rows.jsonl", **values})


@pytest.mark.parametrize(
    ("values", "size"),
    [
        ({}, LikeTarget()),
        ({"flux_kontext_no_resize_control": True}, OwnSize()),
        ({"qwen_image_edit_no_resize_control": True}, OwnSize()),
        ({"no_resize_control": True}, OwnSize()),
        ({"qwen_image_edit_control_resolution": 1024}, NearArea((1024, 1024))),
        ({"control_resolution": [1024, 512]}, NearArea((1024, 512))),
        ({"qwen_image_edit_no_resize_control": True, "qwen_image_edit_control_resolution": 1024}, OwnSize()),
        ({"flux_kontext_no_resize_control": True, "no_resize_control": False}, LikeTarget()),
        ({"qwen_image_edit_control_resolution": 512, "control_resolution": 1024}, NearArea((1024, 1024))),
    ],
)
def test_controls_have_the_size_that_the_options_say(values: dict[str, Any], size: object) -> None:
    assert table(**values).dataset(Geometry()).control_size == size


@pytest.mark.parametrize(
    ("values", "number"),
    [
        ({"architecture": "qie"}, None),
        ({"architecture": "fk"}, 1),
        ({"architecture": "hv"}, 1),
        ({"architecture": "fp"}, 1),
        ({"architecture": "fp", "fp_1f_clean_indices": [0, 10]}, 2),
        ({"architecture": "wan", "fp_1f_clean_indices": [0, 10]}, 2),
        ({"architecture": "fk", "fp_1f_clean_indices": [0, 10]}, 1),
    ],
)
def test_an_item_has_as_many_controls_as_its_architecture_wants(values: dict[str, Any], number: int | None) -> None:
    assert table(**values).dataset(Geometry()).control_count == number


def test_a_control_directory_makes_controls_required() -> None:
    folder = {"image_jsonl_file": None, "image_directory": "a", "caption_extension": ".txt"}

    assert table(**folder).dataset(Geometry()).control == "optional"
    assert table(**folder, control_directory="c").dataset(Geometry()).control == "required"


def test_pictures_are_cropped_to_the_resolution_unless_bucketed() -> None:
    plain, bucketed = table(bucket_no_upscale=True), table(bucket_no_upscale=True, enable_bucket=True)

    assert not plain.dataset(Geometry()).bucketing
    assert not plain.dataset(Geometry()).no_upscale
    assert bucketed.dataset(Geometry()).bucketing
    assert bucketed.dataset(Geometry()).no_upscale
    assert [note.path for note in plain.notes()] == ["bucket_no_upscale"]
    assert not list(bucketed.notes())


def test_repeats_and_batch_size_are_the_datasets() -> None:
    dataset = table(num_repeats=4, batch_size=2, resolution=[832, 480]).dataset(Geometry())

    assert (dataset.repeats, dataset.batch_size, dataset.resolution) == (4, 2, (832, 480))


def test_options_that_exclude_each_other_are_told() -> None:
    notes = list(table(no_resize_control=True, control_resolution=1024).notes())

    assert [note.path for note in notes] == ["control_resolution"]


def test_a_bucketed_resolution_is_an_area_and_need_not_lie_on_the_grid() -> None:
    dataset = table(enable_bucket=True, resolution=[1920, 1080]).dataset(Geometry())

    assert dataset.resolution == (1920, 1080)
