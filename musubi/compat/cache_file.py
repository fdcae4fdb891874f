"""One cache file of the reference, looked through: what it says of itself and whether that is true."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from musubi.architecture import Architecture
from musubi.batch import batch_key
from musubi.cache.format import FINGERPRINT, content_name
from musubi.cache.manifest import CachedFile
from musubi.compat.names import LatentName, latent_name, short_name
from musubi.compat.tensors import lacking
from musubi.core.errors import CacheError, Issue, shown

if TYPE_CHECKING:
    from torch import Tensor

_AGAIN = "remove it and cache this item again"
_SHAPE = re.compile(r"_(\d+)x(\d+)x(\d+)_\w+$")


@attrs.frozen(kw_only=True, eq=False)
class CacheFile:
    """A readable file: its metadata, the key of each tensor by content name, shapes, dtypes, and its checksum."""

    path: Path
    facts: Mapping[str, str]
    keys: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    listed: CachedFile


@attrs.frozen(kw_only=True, eq=False)
class LatentFile:
    """A latent file whose content agrees with its name."""

    file: CacheFile
    name: LatentName

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the latents: (channels, height, width), with frames behind the channels unless there is one."""
        return self.file.shapes["latents"]

    @property
    def frames(self) -> int:
        """How many latent frames are trained."""
        return self.shape[1] if len(self.shape) == 4 else 1


def read_cache_file(path: Path, *, model: Architecture, text: bool) -> CacheFile:
    """Look through a file: header and checksum, no tensor.

    Raises:
        CacheError: It cannot be read, is of another architecture or of this library, or holds too much or too little.
    """
    file = _opened(path)
    if FINGERPRINT in file.facts:
        raise _refused(
            path, "was written by musubi, not by musubi-tuner", "use Cache(folder, model=...).build(dataset)"
        )
    if file.facts.get("architecture") != model.name:
        found = file.facts.get("architecture", "no architecture")
        raise _refused(path, f"is of {found}, not of {model.name}", "import it with its own model")
    missing = lacking(file.keys, architecture=short_name(model), text=text)
    if missing:
        raise _refused(path, f"lacks {', '.join(missing)}", _AGAIN)
    if text and "caption1" not in file.facts:
        raise _refused(path, "says no caption", _AGAIN)
    return file


def read_latent_file(path: Path, *, model: Architecture) -> LatentFile:
    """Look through a latent file and compare it with its name; raises ``CacheError`` as ``read_cache_file`` does."""
    file = read_cache_file(path, model=model, text=False)
    name = latent_name(path.name, architecture=short_name(model), clip="frame_count" in file.facts)
    if name is None:
        raise _refused(
            path, "has a name that its content does not explain", "give it back the name it was cached under"
        )
    latent = LatentFile(file=file, name=name)
    problem = _contradiction(latent, model)
    if problem:
        raise _refused(path, problem, _AGAIN)
    return latent


def _opened(path: Path) -> CacheFile:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise _refused(path, "is no file, or a link that leads to none", "remove it")
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, str] = file.metadata() or {}
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # no mapping
            shapes = {key: tuple(part.get_shape()) for key, part in slices.items()}
            dtypes = {key: str(part.get_dtype()) for key, part in slices.items()}
        with path.open("rb") as content:
            sha256, size = hashlib.file_digest(content, "sha256").hexdigest(), content.tell()
    except (SafetensorError, OSError, ValueError) as error:
        raise _refused(path, f"cannot be read or is not whole: {error}", _AGAIN) from error
    keys = _by_content(path, list(shapes))
    return CacheFile(
        path=path,
        facts=facts,
        keys=keys,
        shapes={name: shapes[key] for name, key in keys.items()},
        dtypes={name: dtypes[key] for name, key in keys.items()},
        listed=CachedFile(
            name=path.name, bytes=size, sha256=sha256, key=_key({name: shapes[key] for name, key in keys.items()})
        ),
    )


def _by_content(path: Path, keys: list[str]) -> dict[str, str]:
    """Return the keys by content name; of two dtypes of one tensor the reference would stack both into a batch."""
    names: dict[str, str] = {}
    for key in sorted(keys):
        name = content_name(key)
        if name in names:
            hint = "it was cached twice in different dtypes; " + _AGAIN
            raise _refused(path, f"holds {name} twice: {names[name]} and {key}", hint)
        names[name] = key
    return names


def _key(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the batch key of tensors of these shapes, without reading them."""
    import torch

    hollow: dict[str, Tensor] = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return batch_key(hollow)


def _contradiction(latent: LatentFile, model: Architecture) -> str:
    """Say in what way a file contradicts its name or its metadata, or nothing."""
    facts, shape, name = latent.file.facts, latent.shape, latent.name
    geometry = model.geometry
    if len(shape) not in {3, 4} or shape[0] != geometry.channels:
        return f"has latents of shape {shape}, of {geometry.channels} channels are wanted"
    told = _SHAPE.search(latent.file.keys["latents"])
    if told is None or tuple(map(int, told.groups())) != (latent.frames, *shape[-2:]):
        return f"names latents of shape {shape} {latent.file.keys['latents']}"
    if (facts.get("width"), facts.get("height")) != tuple(map(str, name.size)):
        return f"is {facts.get('width')}x{facts.get('height')} by its metadata, not {name.size[0]}x{name.size[1]}"
    if name.window is None:
        return ""
    if facts["frame_count"] != str(name.window.count):
        return f"has {facts['frame_count']} frames by its metadata, not {name.window.count}"
    bucket = (shape[-1] * geometry.stride, shape[-2] * geometry.stride)
    if bucket != name.size:
        return f"has latents of {bucket[0]}x{bucket[1]}, not of {name.size[0]}x{name.size[1]}"
    if name.section is None and latent.frames != geometry.latent_shape(name.size, name.window.count)[1]:
        return f"has {latent.frames} latent frames, which are not those of {name.window.count}"
    return ""


def _refused(path: Path, message: str, hint: str) -> CacheError:
    return CacheError("cannot import", [Issue(shown(path), message, hint)])
