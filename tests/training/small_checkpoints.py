"""The small transformer of the network tests in files: in original names, in the library's, and in shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.networks.small import Small
from tests.networks.small_spec import SmallSpec

SPEC = SmallSpec()
Names = Literal["original", "prefixed", "library", "shards"]
LAYOUTS: tuple[Names, ...] = ("original", "prefixed", "library", "shards")


def small(seed: int = 0) -> Small:
    """Return the model with random weights."""
    torch.manual_seed(seed)
    return Small().requires_grad_(requires_grad=False).eval()


def original(model: Small) -> dict[str, Tensor]:
    """Return the model's tensors by original name, fused, the halves of its head in the original's order."""
    state = model.state_dict()
    found: dict[str, Tensor] = {}
    for name in state:
        source, _ = SPEC.keys.to_original(name)
        found[source] = torch.cat([state[part.name] for part in SPEC.keys.to_library(source)])
    return found | {name: _exchanged(found[name]) for name in ("last.weight", "last.bias")}


def write(model: Small, folder: Path, names: Names) -> Path:
    """Write a checkpoint and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if names == "shards":
        return _shards(original(model), folder)
    path = folder / f"{names}.safetensors"
    tensors = dict(model.state_dict()) if names == "library" else original(model)
    prefix = "model.diffusion_model." if names == "prefixed" else ""
    save_file(
        {f"{prefix}{name}": tensor.clone() for name, tensor in tensors.items()},
        path,
        {"modelspec.title": "Small", "modelspec.hash_sha256": "0xold", "path": "/home/me/x.safetensors"},
    )
    return path


def read(path: Path, names: Names) -> Small:
    """Load what ``write`` or a merge wrote."""
    model, tensors = Small(), load_file(path)
    if names != "library":
        tensors = {name.removeprefix("model.diffusion_model."): tensor for name, tensor in tensors.items()}
        tensors |= {name: _exchanged(tensors[name]) for name in ("last.weight", "last.bias")}
        tensors = _split(tensors, model)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.requires_grad_(requires_grad=False).eval()


def _split(tensors: dict[str, Tensor], model: Small) -> dict[str, Tensor]:
    state, found = model.state_dict(), dict[str, Tensor]()
    for name, tensor in tensors.items():
        parts = [part.name for part in SPEC.keys.to_library(name)]
        found |= zip(parts, tensor.split([len(state[part]) for part in parts]), strict=True)
    return found


def _shards(tensors: dict[str, Tensor], folder: Path) -> Path:
    names = list(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, members in files.items():
        save_file({name: tensors[name].clone() for name in members}, folder / file)
    index = folder / "small.safetensors.index.json"
    places = {name: file for file, members in files.items() for name in members}
    index.write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return index


def _exchanged(tensor: Tensor) -> Tensor:
    return torch.cat(tensor.chunk(2)[::-1])
