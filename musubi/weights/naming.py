"""Which tensors of a file go to which parameters of a module, whatever convention the file's names follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from musubi.core.errors import Issue
from musubi.keymap import KeyMap

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.model.")
"""What repackaged checkpoints put before a denoiser's names."""


@attrs.frozen
class Piece:
    """One tensor under its original name: the file's tensors that make it up, and the parameters that take its rows."""

    original: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


def strip(name: str, prefixes: Sequence[str]) -> str:
    """Return a name without the first prefix that it begins with."""
    for prefix in prefixes:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def count_after(names: Iterable[str], prefix: str) -> int:
    """Return how many different path components follow a prefix, e.g. blocks after ``"blocks."``."""
    return len({name[len(prefix) :].split(".", 1)[0] for name in names if name.startswith(prefix)})


def plan_pieces(
    names: Mapping[str, str], keys: KeyMap, parameters: Mapping[str, str]
) -> tuple[list[Piece], list[Issue]]:
    """Assign a file's tensors to parameters, reading its names as original or as library names, whichever fits better.

    Args:
        names: Name in the file -> name without prefix.
        keys: Original names <-> library names.
        parameters: Every name of a parameter -> the one under which it is known (tied ones have several).

    Returns:
        The pieces, and what is unknown or claimed twice.
    """
    first: dict[str, str] = {}
    issues: list[Issue] = []
    for source, short in names.items():
        if first.setdefault(short, source) != source:
            issues.append(Issue(source, f"is the same tensor as {first[short]}"))
    unique = {source: short for short, source in first.items()}
    # A name that no rule covers is the same in both readings, so a library-named file fits both: prefer that reading.
    readings = [_as_library(unique, keys, parameters), _as_original(unique, keys, parameters)]
    pieces, problems = min(readings, key=lambda reading: len(reading[1]))
    return pieces, issues + problems


def _as_original(
    names: Mapping[str, str], keys: KeyMap, parameters: Mapping[str, str]
) -> tuple[list[Piece], list[Issue]]:
    pieces: list[Piece] = []
    issues: list[Issue] = []
    for source, short in names.items():
        targets = tuple(part.name for part in keys.to_library(short))
        if all(target in parameters for target in targets):
            pieces.append(Piece(short, (source,), targets))
        else:
            issues.append(_unknown(source))
    return _once(pieces, issues, parameters)


def _as_library(
    names: Mapping[str, str], keys: KeyMap, parameters: Mapping[str, str]
) -> tuple[list[Piece], list[Issue]]:
    places = {short: source for source, short in names.items()}
    issues = [_unknown(source) for source, short in names.items() if short not in parameters]
    members: dict[str, tuple[str, ...]] = {}
    for short in places:
        if short in parameters:
            original, _ = keys.to_original(short)
            members.setdefault(original, tuple(part.name for part in keys.to_library(original)))
    pieces = [
        Piece(original, tuple(places[part] for part in parts), parts)
        for original, parts in members.items()
        if all(part in places for part in parts)
    ]
    return _once(pieces, issues, parameters)


def _once(
    pieces: Sequence[Piece], issues: list[Issue], parameters: Mapping[str, str]
) -> tuple[list[Piece], list[Issue]]:
    """Keep one piece for each parameter; a tied parameter's second name is redundant, another tensor a problem."""
    taken: dict[str, Piece] = {}
    kept: list[Piece] = []
    for piece in pieces:
        homes = [parameters[target] for target in piece.targets]
        earlier = next((taken[home] for home in homes if home in taken), None)
        if earlier is None:
            kept.append(piece)
            taken.update(dict.fromkeys(homes, piece))
        elif earlier.targets == piece.targets:
            issues.append(Issue(piece.sources[0], f"fills the same parameter as {earlier.sources[0]}"))
    return kept, issues


def _unknown(source: str) -> Issue:
    return Issue(source, "is not known to the model")
