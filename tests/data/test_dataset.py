from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.architecture import Geometry
from musubi.core.errors import ConfigError
from musubi.data.dataset import Dataset
from musubi.data.sources.folder import Folder
from musubi.data.windows import Head

sides = st.integers(2, 80).map(lambda n: 16 * n)


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    return Dataset.from_folder(
        draw(st.sampled_from(["clips", "a b/ü", "/data/x"])),
        resolution=draw(st.one_of(sides, st.tuples(sides, sides))),
        frames=draw(st.lists(st.integers(0, 30).map(lambda k: 4 * k + 1), min_size=1, max_size=4)),
        recursive=draw(st.booleans()),
        batch_size=draw(st.integers(1, 8)),
        repeats=draw(st.integers(1, 8)),
        bucketing=draw(st.booleans()),
        no_upscale=draw(st.booleans()),
        control=draw(st.sampled_from(["optional", "required"])),
    )


@settings(deadline=None, max_examples=30)
@given(dataset=datasets())
def test_a_dataset_survives_toml_and_json(dataset: Dataset) -> None:
    assert Dataset.from_toml(dataset.to_toml()) == dataset
    assert Dataset.from_json(dataset.to_json()) == dataset


def test_one_number_means_a_square_and_lengths_are_sorted_once_each() -> None:
    dataset = Dataset.from_jsonl("rows.jsonl", resolution=512, frames=[25, 1, 25])

    assert dataset.resolution == (512, 512)
    assert dataset.frames == (1, 25)


def test_every_option_returns_a_new_dataset_and_leaves_the_old_one() -> None:
    plain = Dataset.from_folder("clips", resolution=64)

    changed = plain.repeat(4).with_batch_size(2).with_control(required=True).with_windows(Head())

    assert (changed.repeats, changed.batch_size, changed.control) == (4, 2, "required")
    assert changed.with_control(required=False).control == "optional"
    assert (plain.repeats, plain.batch_size, plain.control) == (1, 1, "optional")


def test_everything_wrong_is_reported_at_once_with_the_nearest_legal_values() -> None:
    with pytest.raises(ConfigError) as caught:
        Dataset(
            sources=(),
            resolution=(833, 480),
            bucketing=False,
            frames=(1, 24),
            control="maybe",  # type: ignore[arg-type]
        )

    text = str(caught.value)
    assert "sources: there is none" in text
    assert "resolution: width and height must be multiples of 16, got 833x480 (hint: nearest are 832x480" in text
    assert "frames[1]: must be 4 * k + 1, got 24 (hint: nearest are 21 and 25)" in text
    assert "control: must be one of optional, required" in text


def test_with_buckets_a_resolution_is_an_area_that_need_not_fit_the_grid() -> None:
    assert Dataset.from_folder("a", resolution=(1920, 1080)).resolution == (1920, 1080)


def test_a_resolution_too_small_for_buckets_is_refused_unless_they_are_off() -> None:
    with pytest.raises(ConfigError, match="at least 32x32, or bucketing=False"):
        Dataset.from_folder("a", resolution=16)

    assert Dataset.from_folder("a", resolution=16, bucketing=False).resolution == (16, 16)


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="repeats: must be a whole number of at least 1, got 0"):
        Dataset.from_folder("a", resolution=64).repeat(0)


def test_a_geometry_of_single_pictures_refuses_clip_lengths() -> None:
    with pytest.raises(ConfigError, match="makes single pictures, got 25 frames"):
        Dataset.from_folder("a", resolution=64, frames=25).with_geometry(Geometry(video=False))


def test_the_caption_extension_reaches_the_folder() -> None:
    dataset = Dataset.from_folder(Path("a"), resolution=64, caption_extension=".caption")

    assert dataset.sources == (Folder("a", caption_extension=".caption"),)


def test_a_file_may_give_single_numbers_as_the_constructor_does() -> None:
    text = 'resolution = 512\nframes = 25\n[[sources]]\nkind = "folder"\npath = "clips"\n'

    assert Dataset.from_toml(text) == Dataset.from_folder("clips", resolution=512, frames=25)


def test_text_for_lengths_is_one_mistake_not_one_for_each_letter() -> None:
    with pytest.raises(ConfigError) as caught:
        Dataset.from_folder("a", resolution=64, frames="1,25")  # type: ignore[arg-type]

    assert [issue.path for issue in caught.value.issues] == ["frames"]
