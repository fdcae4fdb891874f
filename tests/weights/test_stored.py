from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from musubi.architecture import StoredWeight
from musubi.keymap import KeyMap, Rename
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.stored import first_quantised, stored_weights

KEYS = KeyMap((Rename("attn.qkv", ("q", "k", "v")), Rename("mlp", ("ff",))))
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def _weight(rows: int, dtype: torch.dtype = E4M3) -> Tensor:
    return torch.ones(rows, 8).to(dtype)


def _stored(tensors: dict[str, Tensor], folder: Path) -> dict[str, StoredWeight]:
    save_file(tensors, folder / "m.safetensors")
    with open_checkpoint(folder / "m.safetensors") as checkpoint:
        return dict(stored_weights(checkpoint, KEYS))


def test_matrices_of_8_bits_are_told_by_original_names(tmp_path: Path) -> None:
    tensors = {
        "attn.qkv.weight": _weight(10),
        "attn.qkv.scale_weight": torch.ones(10, 2),
        "attn.qkv.bias": torch.ones(10).to(E4M3),
        "mlp.weight": _weight(4, E5M2),
        "patch.weight": torch.ones(2, 2, 2).to(E4M3),
        "fine.weight": _weight(4, torch.bfloat16),
        "whole.weight": _weight(4, torch.int8),
        "int.weight": _weight(4, torch.int8),
        "int.weight_scale": torch.ones(4),
        "one.weight": _weight(4),
        "one.weight_scale": torch.ones(1),
    }

    found = _stored({f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}, tmp_path)

    assert found == {
        "attn.qkv": StoredWeight(dtype="float8_e4m3fn", scale=(10, 2, 1)),
        "mlp": StoredWeight(dtype="float8_e5m2"),
        "int": StoredWeight(dtype="int8", scale=(4, 1)),
        "one": StoredWeight(dtype="float8_e4m3fn", scale=()),
    }


@pytest.mark.parametrize(("scale", "joined"), [((), ()), (("rows", 1), (10, 1)), (("rows", 2), (10, 2, 1))], ids=str)
def test_parts_in_the_librarys_names_are_one_original_module(
    scale: tuple[object, ...], joined: tuple[int, ...], tmp_path: Path
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, rows in {"q": 6, "k": 2, "v": 2, "ff": 4}.items():
        shape = tuple(rows if side == "rows" else int(str(side)) for side in scale)
        tensors |= {f"{name}.weight": _weight(rows), f"{name}.weight_scale": torch.ones(shape)}

    assert _stored(tensors, tmp_path)["attn.qkv"] == StoredWeight(dtype="float8_e4m3fn", scale=joined)


def test_parts_that_differ_are_left_out(tmp_path: Path) -> None:
    parts = {"q.weight": _weight(6), "k.weight": _weight(2, E5M2), "v.weight": _weight(2), "ff.weight": _weight(4)}

    assert set(_stored(parts, tmp_path)) == {"mlp"}
    assert set(_stored({**parts, "k.weight": _weight(2, torch.bfloat16)}, tmp_path)) == {"mlp"}
    assert set(_stored({**parts, "k.weight": _weight(2)}, tmp_path)) == {"attn.qkv", "mlp"}


@pytest.mark.parametrize("layout", ["file", "shards", "index", "folder"])
def test_the_first_quantised_matrix_is_found_in_every_layout(layout: str, tmp_path: Path) -> None:
    names = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"]
    tensors = {"a.weight": _weight(4, torch.bfloat16), "b.weight": _weight(4, E5M2)}
    if layout == "file":
        save_file(tensors, tmp_path / "m.safetensors")
    for file, (name, tensor) in zip(names if layout != "file" else [], tensors.items(), strict=False):
        save_file({name: tensor}, tmp_path / file)
    if layout in {"index", "folder"}:
        index = {"weight_map": dict(zip(tensors, names, strict=True))}
        (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    path = {"file": "m.safetensors", "shards": names[0], "index": "m.safetensors.index.json", "folder": "."}[layout]

    assert first_quantised(tmp_path / path) == "float8_e5m2"


def test_files_without_such_a_matrix_tell_nothing(tmp_path: Path) -> None:
    save_file({"a.weight": _weight(2, torch.float16), "b.bias": torch.zeros(2).to(E4M3)}, tmp_path / "a.safetensors")
    torch.save({"a.weight": _weight(2)}, tmp_path / "b.pth")
    (tmp_path / "c.safetensors").write_bytes(b"oops")

    names = ("a.safetensors", "b.pth", "c.safetensors", "nowhere.safetensors")
    assert [first_quantised(tmp_path / name) for name in names] == [None] * 4


def test_an_int8_matrix_is_told_too(tmp_path: Path) -> None:
    save_file({"a.weight": _weight(2, torch.int8), "a.weight_scale": torch.ones(2)}, tmp_path / "a.safetensors")

    assert first_quantised(tmp_path / "a.safetensors") == "int8"
