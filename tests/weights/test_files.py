from __future__ import annotations

import json
from pathlib import Path

import pytest

from musubi.core.errors import WeightsError
from musubi.weights.files import checkpoint_files, holds_checkpoint


def _touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


def test_a_single_file_is_itself(tmp_path: Path) -> None:
    (file,) = _touch(tmp_path, "model.safetensors")

    assert checkpoint_files(file) == (file,)


def test_any_shard_stands_for_all(tmp_path: Path) -> None:
    shards = _touch(tmp_path, *SHARDS)

    assert checkpoint_files(shards[0]) == tuple(shards)
    assert checkpoint_files(shards[1]) == tuple(shards)


def test_an_index_names_its_shards(tmp_path: Path) -> None:
    shards = _touch(tmp_path, *SHARDS[:2])
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}}), encoding="utf-8")

    assert checkpoint_files(index) == tuple(shards)
    assert checkpoint_files(tmp_path) == tuple(shards)


def test_a_folder_is_its_only_model(tmp_path: Path) -> None:
    shards = _touch(tmp_path, *SHARDS)
    _touch(tmp_path, "config.json", "README.md", ".hidden.safetensors")

    assert checkpoint_files(tmp_path) == tuple(shards)


def test_a_folder_prefers_safetensors_to_pickles(tmp_path: Path) -> None:
    _, safe = _touch(tmp_path, "models_t5.pth", "diffusion_pytorch_model.safetensors")

    assert checkpoint_files(tmp_path) == (safe,)


def test_several_paths_are_read_in_their_order(tmp_path: Path) -> None:
    files = _touch(tmp_path, "b.safetensors", "a.pth")

    assert checkpoint_files(files) == tuple(files)


def test_all_missing_shards_are_named(tmp_path: Path) -> None:
    _touch(tmp_path, SHARDS[0])

    with pytest.raises(WeightsError, match="shards are missing") as caught:
        checkpoint_files(tmp_path / SHARDS[0])

    assert [Path(issue.path).name for issue in caught.value.issues] == SHARDS[1:]


def test_a_folder_of_several_models_asks_which(tmp_path: Path) -> None:
    _touch(tmp_path, "high.safetensors", "low.safetensors")

    with pytest.raises(WeightsError, match=r"high\.safetensors, low\.safetensors"):
        checkpoint_files(tmp_path)


@pytest.mark.parametrize(("name", "message"), [("model.gguf", "GGUF"), ("notes.txt", "not supported")])
def test_other_files_are_refused_by_name(name: str, message: str, tmp_path: Path) -> None:
    (file,) = _touch(tmp_path, name)

    with pytest.raises(WeightsError, match=message) as caught:
        checkpoint_files(file)

    assert name in str(caught.value)


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.safetensors"):
        checkpoint_files(tmp_path / "absent.safetensors")


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "config.json")

    assert not holds_checkpoint(tmp_path)
    with pytest.raises(WeightsError, match="holds no checkpoint"):
        checkpoint_files(tmp_path)


def test_an_index_may_name_anything_but_it_has_to_be_there(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"x": 5}}', encoding="utf-8")

    with pytest.raises(WeightsError, match="5: is missing"):
        checkpoint_files(index)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', "\x00"])
def test_a_damaged_index_is_named(content: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content, encoding="utf-8")

    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json: is not an index"):
        checkpoint_files(index)
