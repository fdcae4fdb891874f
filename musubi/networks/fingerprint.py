"""Writing safetensors with the hashes that model managers look for, and a fingerprint that no layout changes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch
from safetensors.torch import save_file
from torch import Tensor

from musubi.networks.keys import flat
from musubi.networks.weights import AdapterWeights, LoRAWeights

KEY = "musubi.fingerprint"
"""The metadata entry that holds ``of_modules``."""

logger = logging.getLogger(__name__)
_LEGACY_START, _LEGACY_LENGTH, _CHUNK = 0x100000, 0x10000, 1 << 22


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors with metadata, ``sshs_model_hash`` and ``sshs_legacy_hash``.

    The file is written twice: the hashes are of a file with the ``ss_*`` entries only, and belong into the header.
    """
    own = {key: value for key, value in metadata.items() if not key.startswith("sshs_")}
    save_file(dict(tensors), path, {key: value for key, value in own.items() if key.startswith("ss_")})
    hashes = {"sshs_model_hash": model_hash(path), "sshs_legacy_hash": legacy_hash(path)}
    save_file(dict(tensors), path, {**own, **hashes})


def model_hash(path: Path) -> str:
    """Return the SHA-256 of everything after a safetensors file's header: independent of metadata."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little") + 8)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def legacy_hash(path: Path) -> str:
    """Return 8 digits over 64 KiB of the file's second MiB, ``e3b0c442`` for shorter files."""
    with path.open("rb") as file:
        file.seek(_LEGACY_START)
        return hashlib.sha256(file.read(_LEGACY_LENGTH)).hexdigest()[:8]


def of_modules(modules: Mapping[str, AdapterWeights]) -> str:
    """Return the SHA-256 over names, shapes and numbers of adapters, in float32 and with alpha folded into a LoRA.

    So it is the same for all layouts that keep float32, whatever the metadata, the order and the spelling of names.
    """
    digest = hashlib.sha256()
    for name, weights in sorted((flat(name), weights) for name, weights in modules.items()):
        ready = weights.to(torch.float32)
        if isinstance(ready, LoRAWeights):
            ready = ready.folded()
        for role, tensor in sorted(ready.tensors().items()):
            data = tensor.detach().cpu().float().reshape(-1 if role == "dora_scale" else tensor.shape).contiguous()
            digest.update(f"{name}.{role}:{list(data.shape)};".encode())
            digest.update(data.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def publishable(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata with absolute paths cut to their last part: they tell of someone's disk."""
    return {key: _without_folder(key, value) for key, value in metadata.items()}


def _without_folder(key: str, value: str) -> str:
    if value[:1] in "{[":
        return _in_json(key, value)
    for flavour in (PurePosixPath, PureWindowsPath):
        path = flavour(value)
        if path.is_absolute() and len(path.parts) > 2 and "\n" not in value:
            logger.warning("metadata %s: the path is stored without its folder", key)
            return path.name
    return value


def _in_json(key: str, value: str) -> str:
    """Return JSON text with the absolute paths in it cut; text that is none stays as it is."""
    try:
        content = json.loads(value)
    except ValueError:
        return value
    cut = _cut(key, content)
    return value if cut == content else json.dumps(cut, ensure_ascii=False)


def _cut(key: str, value: object) -> object:
    if isinstance(value, dict):
        return {name: _cut(key, entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_cut(key, entry) for entry in value]
    return _without_folder(key, value) if isinstance(value, str) and value else value
