from __future__ import annotations

from pathlib import Path

import pytest

from musubi import ConfigError, Geometry, Jsonl, compat
from musubi.data.sources.folder import Folder


def test_a_value_made_by_hand_is_checked_like_one_from_a_file() -> None:
    with pytest.raises(ConfigError) as caught:
        compat.ReferenceVideos(architecture="wan", video_directory="a", num_repeats=0, target_frames=(1, 0))

    assert [issue.path for issue in caught.value.issues] == ["num_repeats", "target_frames[1]"]


def test_params_have_the_names_of_the_release_only() -> None:
    params = compat.ReferenceImages(architecture="wan", image_directory="a", control_resolution=1024).params

    assert "control_resolution" not in params
    assert params["qwen_image_edit_control_resolution"] is None


def test_the_cache_lies_among_the_media_unless_told_otherwise() -> None:
    plain = compat.ReferenceImages(architecture="wan", image_directory="a")

    assert plain.cache_folder == Path("a")
    assert plain.replace(cache_directory="c").cache_folder == Path("c")
    assert compat.ReferenceImages(architecture="wan", image_jsonl_file="a.jsonl").cache_folder is None


def test_a_directory_is_read_with_its_captions_and_controls() -> None:
    table = compat.ReferenceImages(
        architecture="fk", image_directory="a", control_directory="c", caption_extension=".caption"
    )

    (source,) = table.dataset(Geometry()).sources

    assert source == Folder("a", caption_extension=".caption", control=Path("c"), media="image")


def test_rows_need_no_caption_extension() -> None:
    table = compat.ReferenceImages(architecture="fk", image_jsonl_file="a.jsonl")

    assert table.dataset(Geometry()).sources == (Jsonl("a.jsonl"),)


def test_where_there_are_both_the_directory_is_read() -> None:
    table = compat.ReferenceVideos(
        architecture="wan", video_directory="a", video_jsonl_file="b", caption_extension=".txt"
    )

    assert table.dataset(Geometry()).sources == (Folder("a", media="video"),)
    assert any(note.path == "video_jsonl_file" for note in table.notes())


def test_a_directory_without_a_caption_extension_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="caption_extension: is missing"):
        compat.ReferenceImages(architecture="wan", image_directory="a").dataset(Geometry())


def test_a_folder_of_targets_that_is_also_the_one_of_controls_is_refused_by_name() -> None:
    table = compat.ReferenceImages(
        architecture="fk", image_directory="a", control_directory="a", caption_extension=".txt"
    )

    with pytest.raises(ConfigError, match="control_directory: is image_directory, too"):
        table.dataset(Geometry())


def test_a_control_directory_beside_rows_is_told_to_have_no_effect() -> None:
    table = compat.ReferenceImages(architecture="fk", image_jsonl_file="a.jsonl", control_directory="c")

    assert [note.path for note in table.notes()] == ["control_directory"]


@pytest.mark.parametrize("cls", [compat.ReferenceImages, compat.ReferenceVideos])
def test_a_value_without_a_source_describes_no_dataset(cls: type[compat.ReferenceDataset]) -> None:
    with pytest.raises(ConfigError, match="names no source"):
        cls(architecture="wan").dataset(Geometry())
