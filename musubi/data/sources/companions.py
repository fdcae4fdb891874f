"""Conditioning files and masks in a folder of their own, whose subfolders mirror those of the media."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from musubi.core.errors import Issue, shown
from musubi.data.sources.matching import Matches, Named, composed, joined
from musubi.data.sources.tree import Tree

Matcher = Callable[[Sequence[Named], Sequence[Named]], Matches]


def find_companions(items: Iterable[Named], root: Path, tree: Tree, match: Matcher) -> Matches:
    """Match the items below ``root`` with the files of ``tree``, each folder with the one at the same place.

    A subfolder called like a clip of its place is a folder of frames, unless media lie at its own place.
    """
    places: dict[Path, list[Named]] = {}
    for item in items:
        places.setdefault(item.path.parent.relative_to(root), []).append(item)
    frames = _frame_folders(places, tree)
    there = [folder.relative_to(tree.root) for folder in tree.folders if folder not in frames]
    return joined(match(places.get(place, []), _candidates(tree, place, frames)) for place in there)


def unused_notes(paths: Iterable[Path], hint: str) -> list[Issue]:
    """Return a note for each file that belongs to no item."""
    return [Issue(shown(path), "belongs to no picture or clip", hint) for path in paths]


def _frame_folders(places: Mapping[Path, Sequence[Named]], tree: Tree) -> dict[Path, Path]:
    """Return the folders that are clips, each with its place in the tree."""
    clips = {(place, item.stem) for place, items in places.items() for item in items if item.kind == "video"}
    found: dict[Path, Path] = {}
    for folder, files in tree.folders.items():
        if folder == tree.root or folder.relative_to(tree.root) in places:
            continue
        named = (folder.parent.relative_to(tree.root), composed(folder.name)) in clips
        pictures = any(medium is not None and medium.kind == "image" for medium in map(Named.file, files))
        if named and pictures:
            found[folder] = folder.parent.relative_to(tree.root)
    return found


def _candidates(tree: Tree, place: Path, frames: Mapping[Path, Path]) -> list[Named]:
    files = [medium for medium in map(Named.file, tree.folders[tree.root / place]) if medium is not None]
    return [*files, *(Named.frames(folder) for folder, at in frames.items() if at == place)]
