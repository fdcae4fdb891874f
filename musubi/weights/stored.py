"""The matrices that a checkpoint holds quantised already, told by its headers alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musubi.architecture import StoredWeight
from musubi.core.errors import WeightsError
from musubi.keymap import KeyMap
from musubi.weights.companions import Companions, Stated
from musubi.weights.files import checkpoint_files
from musubi.weights.header import TYPES, read_header
from musubi.weights.naming import PREFIXES, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

KEPT = frozenset({"float8_e4m3fn", "float8_e5m2", "int8"})
"""Types in which a model can keep a matrix as the file has it; others are read into wider ones."""


def stored_weights(
    checkpoint: Checkpoint, keys: KeyMap, prefixes: Sequence[str] = PREFIXES
) -> Mapping[str, StoredWeight]:
    """Return the matrices that a checkpoint holds in 8 bits, by the ORIGINAL names of their modules.

    Of an original module that the file has in parts (in the library's layout), all parts must be kept alike, else
    it is left out; the shape of the scales is then that of all rows. What is not of the denoiser is in the result, too.

    Args:
        checkpoint: The open file.
        keys: Original names <-> the library's.
        prefixes: What names may begin with beside what ``keys`` knows.
    """
    tensors = checkpoint.stated()
    found = {strip(name, prefixes).removesuffix(".weight"): weight for name, weight in _in_eight_bits(tensors).items()}
    modules = {strip(name, prefixes).rpartition(".")[0] for name in tensors}
    return _joined(found, keys) if _in_library_names(modules, keys) else found


def first_quantised(path: Path) -> str | None:
    """Return the type of the first matrix of 8 bits in a local file, folder or set of shards, e.g. ``float8_e4m3fn``.

    Reads headers only. None if there is none; also for pickled files, which are not looked into, and for what cannot be
    read: that is told where it is loaded.
    """
    try:
        headers = [read_header(file)[0] for file in checkpoint_files(path) if file.suffix.lower() == ".safetensors"]
    except WeightsError:
        return None
    matrices = (entry for header in headers for name, entry in header.items() if name.endswith(".weight"))
    types = (TYPES.get(entry["dtype"], ("", 0)) for entry in matrices if len(entry["shape"]) == 2)
    return next((dtype for dtype, size in types if size == 1), None)


def _in_eight_bits(tensors: Mapping[str, Stated]) -> dict[str, StoredWeight]:
    """Return the matrices of 8 bits by their names in the file; whole numbers mean nothing without scales."""
    scales = Companions.of(tensors).scales
    return {
        name: StoredWeight(dtype=told.dtype, scale=scales[name].form if name in scales else None)
        for name, told in tensors.items()
        if name.endswith(".weight") and len(told.shape) == 2 and told.dtype in KEPT
        if name in scales or told.dtype != "int8"
    }


def _in_library_names(modules: Iterable[str], keys: KeyMap) -> bool:
    """Tell whether more of the names are the library's than the original's; most of them differ."""
    original = library = 0
    for module in modules:
        original += [part.name for part in keys.to_library(module)] != [module]
        library += keys.to_original(module)[0] != module
    return library > original


def _joined(found: Mapping[str, StoredWeight], keys: KeyMap) -> dict[str, StoredWeight]:
    joined: dict[str, StoredWeight] = {}
    for module in found:
        original, _ = keys.to_original(module)
        parts = [found.get(part.name) for part in keys.to_library(original)]
        kept = [part for part in parts if part is not None]
        if len(kept) == len(parts) and len({_kind(part) for part in kept}) == 1:
            joined[original] = StoredWeight(dtype=kept[0].dtype, scale=_stacked([part.scale for part in kept]))
    return joined


def _kind(weight: StoredWeight) -> tuple[str, tuple[int, ...] | None]:
    return weight.dtype, weight.scale and weight.scale[1:]


def _stacked(scales: Sequence[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    """Return the shape of the scales of matrices put below one another."""
    first = scales[0]
    return (sum(scale[0] for scale in scales if scale), *first[1:]) if first else first
