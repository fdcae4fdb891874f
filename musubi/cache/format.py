"""The files of a cache: their names, their tensors' keys and their metadata, as the reference (v0.2.13) writes them.

Names are labels only; what is valid is decided by the manifest and by the fingerprint in each file's header.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from musubi.architecture import Size
from musubi.core import atomic
from musubi.core.errors import CacheError, ConfigError, Issue, shown
from musubi.data.sample import Item, Window

if TYPE_CHECKING:
    from torch import Tensor

FINGERPRINT = "musubi.fingerprint"
PARTS = "musubi.parts"
SUFFIX = ".safetensors"

_VERSION = "1.0.1"
_LONGEST = 140
"""Bytes of a file name left to the stem: most file systems end at 255, temporary names need some."""

_DTYPE = re.compile(r"_(float\d+(_e\dm\d(fn|fnuz)?)?|bfloat16|u?int\d+|bool)$")
_SHAPE = re.compile(r"_\d+x\d+x\d+$")


def latent_label(media: str, *, size: Size, suffix: str, window: Window | None = None, part: int | None = None) -> str:
    """Return the name, without extension, of an item's encoded pixels.

    ``size`` is a picture's own size, or a clip's bucket; ``part`` counts the sections that some architectures make.

    Example:
        >>> from musubi.cache.format import latent_label
        >>> latent_label("cat", size=(1920, 1080), suffix="toy")
        'cat_1920x1080_toy'
    """
    section = f"-{part:04d}" if part is not None else ""
    frames = f"_{window}{section}" if window is not None else section
    return f"{_stem(media)}{frames}_{size[0]:04d}x{size[1]:04d}_{suffix}"


def text_label(media: str, *, suffix: str) -> str:
    """Return the name, without extension, of an encoded caption: ``cat_toy_te``."""
    return f"{_stem(media)}_{suffix}_te"


def tensor_key(name: str, tensor: Tensor) -> str:
    """Return the key of a tensor in a file: ``latents`` is stored as ``latents_7x60x104_bfloat16``."""
    if name.endswith("_mask"):
        return name
    shape = ""
    if name.startswith("latents") and tensor.ndim >= 3:
        frames, height, width = (1, *tensor.shape[-2:]) if tensor.ndim == 3 else tensor.shape[-3:]
        shape = f"_{frames}x{height}x{width}"
    return f"{name}{shape}_{str(tensor.dtype).removeprefix('torch.')}"


def content_name(key: str) -> str:
    """Return a tensor's name without the dtype and shape in its key; the inverse of ``tensor_key``."""
    if key.endswith("_mask"):
        return key
    name = _DTYPE.sub("", key)
    return _SHAPE.sub("", name) if name.startswith("latents") else name


def metadata(item: Item, *, architecture: str, text: bool) -> dict[str, str]:
    """Return the metadata that the reference writes: sizes for pixels, the caption for text."""
    common = {"architecture": architecture, "format_version": _VERSION}
    if text:
        return {**common, "caption1": item.caption}
    width, height = item.size if item.kind == "image" else item.bucket
    frames = {"frame_count": str(item.window.count)} if item.kind == "video" else {}
    return {**common, "width": str(width), "height": str(height), **frames}


def dump(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> bytes:
    """Return the content of a file; equal input gives equal bytes (safetensors alone shuffles the metadata)."""
    from safetensors.torch import save

    stored = {tensor_key(name, t): t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    data = save(stored, dict(facts))
    (length,) = struct.unpack("<Q", data[:8])
    header = json.dumps(
        json.loads(data[8 : 8 + length]), sort_keys=True, ensure_ascii=False, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def write(path: Path, data: bytes) -> None:
    """Write a file so that it is either there and whole, or not there.

    Raises:
        CacheError: The disk is full, or the folder may not be written.
    """
    try:
        atomic.write_bytes(path, data)
    except ConfigError as error:
        hint = "free some space or check the folder's permissions, then build again: it goes on where it stopped"
        raise CacheError("cannot write", [Issue(i.path, i.message, hint) for i in error.issues]) from error


def read_header(path: Path) -> Mapping[str, str] | None:
    """Return the metadata of a whole file, or None if there is none or it is not whole."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        facts: dict[str, str] = header.pop("__metadata__", {})
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        return facts if path.stat().st_size == 8 + length + end else None
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError):
        return None


def load(path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file by content name; with ``sha256``, make sure that it is the file it was.

    Raises:
        CacheError: The file is missing, damaged or another one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    hint = "build the cache again: only what is missing is encoded"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CacheError("cannot read entry", [Issue(shown(path), error.strerror or str(error), hint)]) from error
    if sha256 is not None and digest(data) != sha256:
        raise CacheError("damaged entry", [Issue(shown(path), "its content is not what was written", hint)])
    try:
        return {content_name(key): tensor for key, tensor in parse(data).items()}
    except (SafetensorError, ValueError) as error:
        raise CacheError("damaged entry", [Issue(shown(path), str(error), hint)]) from error


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _stem(media: str) -> str:
    """Shorten a name that no file system would take, keeping it unique."""
    encoded = media.encode()
    if len(encoded) <= _LONGEST:
        return media
    return encoded[: _LONGEST - 10].decode(errors="ignore") + "-" + digest(encoded)[:8]
