"""The files of a cache: their names, their tensors' keys and their metadata, as the reference (v0.2.13) writes them.

Names are labels only; what is valid is decided by the manifest and by the fingerprint in each file's header.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs

from musubi.architecture import Size
from musubi.batch import batch_key
from musubi.core.errors import CacheError, Issue, shown
from musubi.data.sample import Item, Window

if TYPE_CHECKING:
    from torch import Tensor

FINGERPRINT = "musubi.fingerprint"
"""What the file was made of, all of it."""

PART, PARTS = "musubi.part", "musubi.parts"
"""Which part of an item the file is, and how many there are."""

DATA = "musubi.data"
"""The SHA-256 of the tensors' bytes: tells whether all of them reached the disk."""

SUFFIX = ".safetensors"

_VERSION = "1.0.1"
_LONGEST = 180
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


def metadata(item: Item, *, architecture: str, caption: str | None = None) -> dict[str, str]:
    """Return the metadata that the reference writes: the caption for text, sizes for pixels."""
    common = {"architecture": architecture, "format_version": _VERSION}
    if caption is not None:
        return {**common, "caption1": caption}
    width, height = item.size if item.kind == "image" else item.bucket
    frames = {"frame_count": str(item.window.count)} if item.kind == "video" else {}
    return {**common, "width": str(width), "height": str(height), **frames}


def dump(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> bytes:
    """Return the content of a file; equal input gives equal bytes (safetensors alone shuffles the metadata)."""
    from safetensors.torch import save

    stored = {tensor_key(name, t): t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    data = save(stored, dict(facts))
    (length,) = struct.unpack("<Q", data[:8])
    described = json.loads(data[8 : 8 + length])
    described["__metadata__"] = {**facts, DATA: digest(data[8 + length :])}
    header = json.dumps(described, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


@attrs.frozen(kw_only=True)
class Found:
    """A whole file as it lies on the disk: its metadata, and what the manifest says of it."""

    facts: Mapping[str, str]
    bytes: int
    sha256: str
    key: str


def read_facts(path: Path) -> Mapping[str, str] | None:
    """Return the metadata in a file's header, or None if it has none; the rest of the file may be missing."""
    try:
        with path.open("rb") as file:
            return _header(file.read(8), file)[0]
    except _NO_ENTRY:
        return None


def examine(path: Path) -> Found | None:
    """Read a file and describe it, or return None if it is not whole."""
    import torch

    try:
        data = path.read_bytes()
        facts, described, start = _header(data[:8], io.BytesIO(data[8:]))
        if facts.get(DATA) != digest(data[start:]):
            return None
        empty = {content_name(n): torch.empty(t["shape"], device="meta") for n, t in described.items()}
    except _NO_ENTRY:
        return None
    return Found(facts=facts, bytes=len(data), sha256=digest(data), key=batch_key(empty))


def load(path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file by content name; with ``sha256``, make sure that it is the file it was.

    Raises:
        CacheError: The file is missing, damaged or another one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    try:
        data = path.read_bytes()
    except OSError as error:
        hint = "build the cache again: only what is missing is encoded"
        raise CacheError("cannot read entry", [Issue(shown(path), error.strerror or str(error), hint)]) from error
    hint = "delete this file and build the cache again: only what is missing is encoded"
    if sha256 is not None and digest(data) != sha256:
        raise CacheError("damaged entry", [Issue(shown(path), "its content is not what was written", hint)])
    try:
        return {content_name(key): tensor for key, tensor in parse(data).items()}
    except (SafetensorError, ValueError) as error:
        raise CacheError("damaged entry", [Issue(shown(path), str(error), hint)]) from error


_NO_ENTRY = (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError)
"""What reading the header of any other file may raise."""


def _header(length: bytes, rest: IO[bytes]) -> tuple[dict[str, str], dict[str, Any], int]:
    """Return a file's metadata, its tensors' descriptions, and where their bytes begin."""
    (size,) = struct.unpack("<Q", length)
    tensors: dict[str, Any] = json.loads(rest.read(size))
    return tensors.pop("__metadata__", {}), tensors, 8 + size


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _stem(media: str) -> str:
    """Shorten a name that no file system would take, keeping it unique."""
    encoded = media.encode(errors="surrogateescape")
    if len(encoded) <= _LONGEST:
        return media
    return encoded[: _LONGEST - 10].decode(errors="ignore") + "-" + digest(encoded)[:8]
