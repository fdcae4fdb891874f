from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from musubi import ConfigError, Wan, compat
from musubi.compat.dataset_table import ReferenceDataset
from tests.data.files import clip, picture

WAN = Wan.t2v_14b()


def problems(*tables: dict[str, Any], general: dict[str, Any] | None = None) -> dict[str, str]:
    """Return the messages of everything wrong with a file, by path."""
    with pytest.raises(ConfigError) as caught:
        compat.parse({"general": general or {}, "datasets": list(tables)}, architecture="wan")
    return {issue.path: str(issue) for issue in caught.value.issues}


def table(**values: Any) -> ReferenceDataset:
    (only,) = compat.parse({"datasets": [values]}, architecture="wan")
    return only


def written(folder: Path, text: str, name: str = "data.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_goes_before_general_and_general_before_the_default() -> None:
    values = {
        "general": {"resolution": 512, "num_repeats": 3},
        "datasets": [{"image_directory": "a", "num_repeats": 2}],
    }

    (only,) = compat.parse(values, architecture="wan")

    assert (only.num_repeats, only.resolution, only.batch_size) == (2, (512, 512), 1)


def test_pictures_and_clips_are_told_apart_by_their_source() -> None:
    assert isinstance(table(image_jsonl_file="a.jsonl"), compat.ReferenceImages)
    assert isinstance(table(video_directory="a"), compat.ReferenceVideos)


def test_every_problem_is_told_at_once_with_its_place_in_the_file() -> None:
    found = problems(
        {"video_directory": "a", "target_frames": [1, 25.0], "source_fps": 30},
        {"image_directory": "b", "num_repeats": 0, "enable_bukket": True},
        general={"resolution": "512", "batch_sise": 2},
    )

    assert set(found) == {
        "general.resolution",
        "general.batch_sise",
        "datasets[0].target_frames[1]",
        "datasets[0].source_fps",
        "datasets[1].num_repeats",
        "datasets[1].enable_bukket",
    }
    assert "did you mean 'enable_bucket'?" in found["datasets[1].enable_bukket"]
    assert "did you mean 'batch_size'?" in found["general.batch_sise"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_repeats", 0),
        ("batch_size", 0),
        ("batch_size", True),
        ("resolution", [0, 512]),
        ("target_frames", []),
        ("target_frames", [0]),
        ("frame_extraction", "middle"),
        ("frame_stride", 0),
        ("frame_sample", 0),
        ("max_frames", -1),
        ("source_fps", 0.0),
        ("fp_latent_window_size", 0),
        ("caption_extension", ""),
    ],
)
def test_what_the_reference_accepts_and_breaks_on_later_is_an_error_that_names_the_key(key: str, value: object) -> None:
    found = problems({"video_directory": "a", key: value})

    (path,) = found
    assert path.startswith(f"datasets[0].{key}")


def test_keys_of_pictures_and_of_clips_are_not_mixed() -> None:
    found = problems({"video_directory": "a", "image_directory": "b", "fp_1f_target_index": 5})

    assert "does not go with video_directory" in found["datasets[0].image_directory"]
    assert "does not go with video_directory" in found["datasets[0].fp_1f_target_index"]


def test_a_table_without_a_source_says_which_there_are() -> None:
    found = problems({"target_frames": [25], "resolution": 512})

    assert list(found) == ["datasets[0]"]
    assert "names no source" in found["datasets[0]"]
    assert "video_jsonl_file" in found["datasets[0]"]


def test_a_key_of_a_table_under_general_is_sent_where_it_belongs() -> None:
    found = problems({"image_directory": "a"}, general={"cache_directory": "c"})

    assert "move it into the [[datasets]] it belongs to" in found["general.cache_directory"]


def test_layered_pictures_are_refused_with_the_reason() -> None:
    found = problems({"image_directory": "a", "multiple_target": True})

    assert "Qwen-Image-Layered" in found["datasets[0].multiple_target"]
    assert table(image_directory="a", multiple_target=False).params == table(image_directory="a").params


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"dataset": []}, "dataset"),
        ({"datasets": {"image_directory": "a"}}, "datasets"),
        ({"datasets": ["a"]}, "datasets[0]"),
        ({"general": []}, "general"),
        ({"general": None}, "general"),
    ],
)
def test_a_wrong_shape_of_the_file_is_named(values: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compat.parse(values, architecture="wan")

    assert [issue.path for issue in caught.value.issues] == [path]


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    values = {"general": {"resolution": [832, 480]}, "datasets": [{"video_jsonl_file": "rows", "target_frames": [1]}]}
    toml = '[general]\nresolution = [832, 480]\n[[datasets]]\nvideo_jsonl_file = "rows"\ntarget_frames = [1]\n'

    from_toml = compat.load_dataset_file(written(tmp_path, toml), model=WAN)
    from_json = compat.load_dataset_file(written(tmp_path, json.dumps(values), "DATA.JSON"), model=WAN)

    assert from_toml == from_json == compat.parse(values, architecture="wan")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("data.yaml", "", "must end in .toml or .json"),
        ("data.toml", "[[datasets]\n", "is not valid TOML"),
        ("data.json", "{", "is not valid JSON"),
        ("data.json", "[]", "must be an object"),
        ("data.json", "[" * 100_000, "is not valid JSON"),
        ("data.toml", '[[datasets]]\nimage_directory = "C:\\pictures"\n', "single quotes"),
        ("data.toml", "", "there is none"),
        ("data.toml", "datasets = []", "there is none"),
        ("data.toml", "[[datasets]]\n", "names no source"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_way_out(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = written(tmp_path, text, name)

    with pytest.raises(ConfigError) as caught:
        compat.load_dataset_file(path, model=WAN)

    assert words in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml.*No such file"):
        compat.load_dataset_file(tmp_path / "gone.toml", model=WAN)


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.toml"
    path.write_bytes('image_directory = "Füchse"'.encode("latin-1"))

    with pytest.raises(ConfigError, match=r"data\.toml.*is not UTF-8"):
        compat.load_dataset_file(path, model=WAN)


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "data.toml"
    path.write_text('[[datasets]]\nimage_directory = "a"\n', encoding="utf-8-sig")

    assert len(compat.load_dataset_file(path, model=WAN)) == 1


def test_paths_are_relative_to_the_working_directory_or_else_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run" / "here").mkdir(parents=True)
    (tmp_path / "set" / "here").mkdir(parents=True)
    (tmp_path / "set" / "there").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    text = "\n".join(f'[[datasets]]\nimage_directory = "{name}"' for name in ("here", "there", "nowhere"))

    tables = compat.load_dataset_file(written(tmp_path / "set", text), model=WAN)

    beside = (tmp_path / "set" / "there").as_posix()
    assert [Path(str(table.directory)).as_posix() for table in tables] == ["here", beside, "nowhere"]


def test_what_has_no_effect_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = '[[datasets]]\nimage_directory = "a"\nimage_jsonl_file = "b"\ncaption_extension = ".txt"\n'

    with caplog.at_level(logging.WARNING, logger="musubi"):
        compat.load_datasets(written(tmp_path, text), model=WAN)

    assert "datasets[0].image_jsonl_file: is not read" in caplog.text


def test_two_datasets_with_one_cache_directory_are_fine_and_told() -> None:
    first, second = {"image_directory": "a"}, {"image_directory": "b", "cache_directory": "./a"}
    tables = compat.parse({"datasets": [first, second, {"image_jsonl_file": "c"}]}, architecture="wan")

    (note,) = compat.notes(tables)

    assert note.path == "datasets[1].cache_directory"
    assert "is that of datasets[0], too" in note.message


def test_datasets_that_cannot_be_trained_with_are_all_told_at_once(tmp_path: Path) -> None:
    text = '[[datasets]]\nimage_directory = "a"\n[[datasets]]\nvideo_directory = "b"\n'

    with pytest.raises(ConfigError) as caught:
        compat.load_datasets(written(tmp_path, text), model=WAN)

    paths = [issue.path for issue in caught.value.issues]
    assert paths == ["datasets[0].caption_extension", "datasets[1].caption_extension"]


def test_each_dataset_has_the_models_sizes_and_lengths(tmp_path: Path) -> None:
    text = '[[datasets]]\nvideo_jsonl_file = "b"\ntarget_frames = [26]\n'

    (dataset,) = compat.load_datasets(written(tmp_path, text), model=WAN)

    assert dataset.geometry == WAN.geometry
    assert dataset.frames == (25,)


def test_pictures_and_clips_of_one_folder_are_two_datasets_of_their_own(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    picture(media / "cat.png", size=(300, 200))
    clip(media / "dog.mp4", frames=9, size=(96, 160))
    text = (
        '[general]\ncaption_extension = ".txt"\nresolution = [96, 80]\n'
        '[[datasets]]\nimage_directory = "media"\nenable_bucket = true\n'
        '[[datasets]]\nvideo_directory = "media"\ntarget_frames = [1, 6, 9]\nframe_extraction = "chunk"\n'
    )

    stills, clips = compat.load_datasets(written(tmp_path, text), model=WAN)

    assert {item.name: item.bucket_label for item in stills.scan(progress=False).items} == {"cat": "112x64"}
    labels = sorted(item.bucket_label for item in clips.scan(progress=False).items)
    assert labels == ["64x112x1"] * 9 + ["64x112x5"] + ["64x112x9"]
