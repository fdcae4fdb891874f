from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.core.errors import WeightsError
from musubi.weights.axes import Axes, rope_axes
from musubi.weights.checkpoint import Checkpoint, open_checkpoint

KEY = "family.rope_axes_dim"


def _axes(checkpoint: Checkpoint, head_dim: int) -> Axes:
    return rope_axes(checkpoint, head_dim, key=KEY, config_class=r"Some.*", published=(16, 56, 56))


def _write(folder: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({"x": torch.zeros(1)}, folder / "dit.safetensors", metadata=metadata)
    return folder / "dit.safetensors"


def test_without_a_word_the_published_ones_count(tmp_path: Path) -> None:
    with open_checkpoint(_write(tmp_path)) as checkpoint:
        assert _axes(checkpoint, 128) == (16, 56, 56)


def test_the_file_s_own_word_counts_first(tmp_path: Path) -> None:
    with open_checkpoint(_write(tmp_path, {KEY: "[4, 6, 6]"})) as checkpoint:
        assert _axes(checkpoint, 16) == (4, 6, 6)


@pytest.mark.parametrize("told", [None, "[4, 6, 8]", "[4, 12]", '{"a": 1}', "[4, 6, 6", "[4, 6.0, 6]"])
def test_axes_that_do_not_fill_a_head_are_refused(told: str | None, tmp_path: Path) -> None:
    with (
        open_checkpoint(_write(tmp_path, {KEY: told} if told else None)) as checkpoint,
        pytest.raises(WeightsError, match="does not tell how 16 channels of a head") as caught,
    ):
        _axes(checkpoint, 16)

    assert KEY in caught.value.issues[0].hint


@pytest.mark.parametrize(
    ("name", "axes"), [("SomeTransformer", (8, 60, 60)), ("Other", (16, 56, 56)), ("NotSome", (16, 56, 56))]
)
def test_only_a_config_of_the_model_counts(name: str, axes: Axes, tmp_path: Path) -> None:
    config = json.dumps({"_class_name": name, "rope_axes_dim": [8, 60, 60]})
    (tmp_path / "config.json").write_text(config, encoding="utf-8")

    with open_checkpoint(_write(tmp_path)) as checkpoint:
        assert _axes(checkpoint, 128) == axes
