from __future__ import annotations

from pathlib import Path

from musubi.weights.place import weights_path


def test_a_component_is_found_inside_a_pipeline_folder(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "model_index.json").touch()

    assert weights_path(tmp_path, "transformer") == tmp_path / "transformer"
    assert weights_path(tmp_path / "transformer", "transformer") == tmp_path / "transformer"


def test_other_folders_and_files_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()

    assert weights_path(tmp_path, "transformer") == tmp_path
    assert weights_path(tmp_path / "x.safetensors", "transformer") == tmp_path / "x.safetensors"
