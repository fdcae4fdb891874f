from __future__ import annotations

from pathlib import Path

import pytest

from musubi.core.errors import ConfigError
from musubi.inference.loras import LoRAUse
from musubi.networks.file import LoRAFile


def test_a_path_is_read_and_a_value_is_taken_as_it_is(toy_lora: LoRAFile, tmp_path: Path) -> None:
    path = toy_lora.save(tmp_path / "clay.safetensors")

    assert LoRAUse.of(path, weight=1.0, merge=False).file().rank == toy_lora.rank == 4
    assert LoRAUse.of(toy_lora, weight=1.0, merge=False).file() is toy_lora


def test_results_tell_the_files_name_and_no_folder(toy_lora: LoRAFile, tmp_path: Path) -> None:
    assert LoRAUse.of(tmp_path / "clay.safetensors", weight=0.8, merge=False).name == "clay.safetensors:0.8"
    assert LoRAUse.of(toy_lora, weight=1.0, merge=False).name == "in memory:1"


def test_nothing_to_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="path: is missing"):
        LoRAUse().file()


def test_a_weight_must_be_a_number() -> None:
    with pytest.raises(ConfigError, match="weight: must be a number"):
        LoRAUse.from_dict({"path": "a.safetensors", "weight": True})
