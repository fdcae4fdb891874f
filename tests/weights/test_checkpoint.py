from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.core.errors import WeightsError
from musubi.weights.checkpoint import open_checkpoint


def test_shards_and_pickles_together_are_one_checkpoint(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "m-00001-of-00002.safetensors", metadata={"x": "1"})
    save_file({"b": torch.zeros(3, dtype=torch.bfloat16)}, tmp_path / "m-00002-of-00002.safetensors")
    torch.save({"c": torch.arange(4)}, tmp_path / "rest.pth")

    with open_checkpoint([tmp_path / "m-00001-of-00002.safetensors", tmp_path / "rest.pth"]) as checkpoint:
        assert checkpoint.names() == ("a", "b", "c")
        assert checkpoint.shape("b") == (3,)
        assert checkpoint.dtype("b") == torch.bfloat16
        assert checkpoint.metadata == {"x": "1"}
        assert "c" in checkpoint
        assert torch.equal(checkpoint.read("c"), torch.arange(4))


def test_the_config_beside_the_files_is_known(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "m.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 2}), encoding="utf-8")

    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.config == {"num_heads": 2}


@pytest.mark.parametrize("content", ["not json", "[1]", None])
def test_no_usable_config_is_an_empty_one(content: str | None, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "m.safetensors")
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")

    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.config == {}


def test_all_damaged_files_are_named_at_once(tmp_path: Path) -> None:
    names = [f"m-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    save_file({"a": torch.ones(2)}, tmp_path / names[0])
    for name in names[1:]:
        (tmp_path / name).write_bytes(b"oops")

    with pytest.raises(WeightsError) as caught:
        open_checkpoint(tmp_path / names[0])

    assert [Path(issue.path).name for issue in caught.value.issues] == names[1:]


def test_what_was_read_outlives_the_checkpoint(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "m.safetensors")

    with open_checkpoint(tmp_path) as checkpoint:
        tensor = checkpoint.read("a")

    assert torch.equal(tensor, torch.ones(2))
