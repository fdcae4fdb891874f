from __future__ import annotations

from typing import Any

import pytest

from musubi import Chunk, ConfigError, EveryFrame, Full, Geometry, Head, Slide, Spread, StatedRate, compat


def table(**values: Any) -> compat.ReferenceVideos:
    return compat.ReferenceVideos(**{"architecture": "wan", "video_jsonl_file": "rows.jsonl", **values})


@pytest.mark.parametrize(
    ("values", "windows"),
    [
        ({}, Head()),
        ({"frame_extraction": "head", "frame_stride": 3}, Head()),
        ({"frame_extraction": "chunk"}, Chunk()),
        ({"frame_extraction": "slide", "frame_stride": 10}, Slide(stride=10)),
        ({"frame_extraction": "uniform", "frame_sample": 4}, Spread(count=4)),
        ({"frame_extraction": "full", "max_frames": 81}, Full(max_frames=81)),
    ],
)
def test_windows_are_cut_where_the_extraction_says(values: dict[str, Any], windows: object) -> None:
    assert table(**values).dataset(Geometry()).windows == windows


def test_uniform_with_one_sample_is_the_head() -> None:
    windows = table(frame_extraction="uniform", frame_sample=1).dataset(Geometry()).windows

    assert windows.cut(100, (1, 25)) == Head().cut(100, (1, 25))


def test_lengths_are_rounded_down_to_legal_ones_each_once() -> None:
    assert table(target_frames=[49, 1, 14, 15, 13, 4]).dataset(Geometry()).frames == (1, 13, 49)


def test_all_frames_are_taken_unless_the_files_rate_is_stated() -> None:
    assert table().dataset(Geometry()).rate == EveryFrame()
    assert table(source_fps=30.0).dataset(Geometry()).rate == StatedRate(source_fps=30.0)


@pytest.mark.parametrize("values", [{}, {"enable_bucket": True, "bucket_no_upscale": True}])
def test_clips_are_bucketed_whatever_the_file_says_as_in_the_references_caches(values: dict[str, Any]) -> None:
    dataset = table(**values).dataset(Geometry())

    assert dataset.bucketing
    assert not dataset.no_upscale


def test_what_has_no_effect_on_clips_is_told() -> None:
    assert not list(table().notes())
    assert [note.path for note in table(enable_bucket=True, bucket_no_upscale=True).notes()] == ["bucket_no_upscale"]


def test_a_clip_has_one_control() -> None:
    folder = {"video_jsonl_file": None, "video_directory": "a", "caption_extension": ".txt"}
    dataset = table(**folder, control_directory="c").dataset(Geometry())

    assert (dataset.control, dataset.control_count) == ("required", 1)


def test_clips_for_an_architecture_that_makes_pictures_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="video_jsonl_file: this architecture makes single pictures"):
        table().dataset(Geometry(video=False))


def test_the_options_of_one_architecture_are_there_as_values() -> None:
    assert table(fp_latent_window_size=5).fp_latent_window_size == 5
