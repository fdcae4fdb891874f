"""Which conditioning files and masks go with which items, by name alone.

The rule for pictures is that of the reference's later versions: a file belongs to the item with the longest name that
it can belong to, and to one item only. ``img_1_0.png`` is of ``img_1``, never of ``img_10`` or of ``img``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from musubi.core.errors import Issue, shown
from musubi.data.sample import Kind, kind_of

_NUMBERED = re.compile(r"(?P<stem>.*)_(?P<number>\d+)", re.DOTALL)
_CLIP_ORDER = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".flv", ".wmv", ".m4v", ".mpg", ".mpeg")
"""Which of several clips of one name is taken: the reference's order."""

_Name = tuple[Kind, str]


@attrs.frozen(kw_only=True)
class Named:
    """A picture, a clip or a folder of frames, with the name that others are matched to."""

    path: Path
    kind: Kind
    stem: str

    @classmethod
    def file(cls, path: Path) -> Named | None:
        """Return a file under its stem, if it is a picture or clip."""
        kind = kind_of(path)
        return None if kind is None else cls(path=path, kind=kind, stem=composed(path.stem))

    @classmethod
    def frames(cls, folder: Path) -> Named:
        """Return a folder of frames under its whole name: ``walk v1.5`` has no extension."""
        return cls(path=folder, kind="video", stem=composed(folder.name))

    @property
    def name(self) -> _Name:
        """What tells it from others: a picture and a clip may share a stem."""
        return self.kind, self.stem

    @property
    def written(self) -> str:
        """The stem as the disk has it."""
        return self.path.name if self.stem == composed(self.path.name) else self.path.stem


@attrs.frozen(kw_only=True)
class Matches:
    """The files of each item that has some, in order.

    ``undecided`` items share their name with another, so that nobody can say whose a file is; ``issues`` name them and
    the files that would belong to an item but for their ending. ``unused`` files belong to none.
    """

    files: Mapping[Path, tuple[Path, ...]] = attrs.field(factory=dict)
    undecided: frozenset[Path] = frozenset()
    issues: tuple[Issue, ...] = ()
    unused: tuple[Path, ...] = ()


@attrs.frozen
class _Claim:
    """A file that belongs to an item, and where it stands: 0 for the very name, else one more than its number."""

    file: Named
    place: int = 0


def composed(text: str) -> str:
    """Return a name in the one form that macOS and others agree on: ``e`` and an accent are ``é``."""
    return unicodedata.normalize("NFC", text)


def match_controls(items: Iterable[Named], files: Iterable[Named]) -> Matches:
    """Give each item the files called like it or like it and a number: ``cat``, ``cat_0``, ``cat_1``, in this order.

    Pictures go with pictures, clips and folders of frames with clips. Of several clips called exactly like theirs one
    is taken: the same file name, else a folder, else the first in the reference's order of extensions.
    """
    owners = _by_name(items)
    claims: dict[_Name, list[_Claim]] = {}
    strays: list[Matches] = []
    for file in files:
        owner, place = _owner(file, owners)
        if owner is None:
            strays.append(_stray(file, owners))
        else:
            claims.setdefault(owner, []).append(_Claim(file, place))
    return joined([*(_settled(owners[owner], claimed) for owner, claimed in claims.items()), *strays])


def match_masks(items: Iterable[Named], files: Iterable[Named]) -> Matches:
    """Give each item the one mask of its stem; a clip without a moving mask takes a still one that is no picture's."""
    owners = _by_name(items)
    claims: dict[_Name, list[Named]] = {}
    unused: list[Path] = []
    for file in files:
        owner: _Name = file.name if file.name in owners else ("video", file.stem)
        if owner in owners:
            claims.setdefault(owner, []).append(file)
        else:
            unused.append(file.path)
    settled = (_settled_masks(owners[owner], claimed) for owner, claimed in claims.items())
    return joined([*settled, Matches(unused=tuple(unused))])


def joined(parts: Iterable[Matches]) -> Matches:
    """Return the matches of several groups of items as one."""
    parts = tuple(parts)
    return Matches(
        files={item: files for part in parts for item, files in part.files.items()},
        undecided=frozenset(item for part in parts for item in part.undecided),
        issues=tuple(issue for part in parts for issue in part.issues),
        unused=tuple(path for part in parts for path in part.unused),
    )


def _by_name(items: Iterable[Named]) -> dict[_Name, list[Named]]:
    found: dict[_Name, list[Named]] = {}
    for item in items:
        found.setdefault(item.name, []).append(item)
    return found


def _owner(file: Named, owners: Mapping[_Name, object]) -> tuple[_Name | None, int]:
    """Return whose a file is and its place; a file's own name is longer than the same without a number."""
    if file.name in owners:
        return file.name, 0
    numbered = _NUMBERED.fullmatch(file.stem)
    if numbered is not None and (file.kind, numbered["stem"]) in owners:
        return (file.kind, numbered["stem"]), int(numbered["number"]) + 1
    return None, 0


def _stray(file: Named, owners: Mapping[_Name, Sequence[Named]]) -> Matches:
    """Return a file that belongs to no item: an issue if it is called like one and something that is no number."""
    for end in (at for at in range(len(file.stem) - 1, -1, -1) if file.stem[at] in "_."):
        stem = file.stem[:end]
        if (file.kind, stem) in owners:
            item = owners[file.kind, stem][0].path.name
            message = f"is not taken for {item}: {file.stem[end:]!r} is not _ and a number"
            hint = f"call it {stem}_0{file.path.suffix}, or move it elsewhere"
            return Matches(issues=(Issue(shown(file.path), message, hint),))
    return Matches(unused=(file.path,))


def _settled(rivals: Sequence[Named], claims: Sequence[_Claim]) -> Matches:
    """Give an item its files in order; among several items of one stem only clips' own file names can decide."""
    if len(rivals) == 1:
        return _ordered(rivals[0], claims)
    items = {composed(item.path.name): item for item in rivals if item.kind == "video"}
    if all(composed(claim.file.path.name) in items for claim in claims):
        return joined(_ordered(items[composed(claim.file.path.name)], [claim]) for claim in claims)
    names = ", ".join(claim.file.path.name for claim in claims)
    return _undecided(rivals, f"whose is {names}?", "give each item a stem of its own")


def _ordered(item: Named, claims: Iterable[_Claim]) -> Matches:
    """Return an item's files by place, those of one place as they came; a clip has but one of its very name."""
    order = sorted(claims, key=lambda claim: claim.place)
    exact = [claim.file for claim in order if claim.place == 0]
    numbered = [claim.file.path for claim in order if claim.place > 0]
    spare: Sequence[Named] = ()
    if item.kind == "video":
        exact = sorted(exact, key=lambda file: _preference(item, file))
        exact, spare = exact[:1], exact[1:]
    files = (*(file.path for file in exact), *numbered)
    return Matches(files={item.path: files}, unused=tuple(file.path for file in spare))


def _preference(item: Named, file: Named) -> tuple[bool, int]:
    order = -1 if file.written == file.path.name else _CLIP_ORDER.index(file.path.suffix.lower())
    return composed(file.path.name) != composed(item.path.name), order


def _settled_masks(rivals: Sequence[Named], files: Sequence[Named]) -> Matches:
    masks = [file for file in files if file.kind == "video"] or list(files)
    names = ", ".join(mask.path.name for mask in masks)
    if len(rivals) > 1:
        return _undecided(rivals, f"whose mask is {names}?", "give each item a stem of its own")
    if len(masks) > 1:
        return _undecided(rivals, f"which of {names} is its mask?", "keep one of them")
    spare = tuple(file.path for file in files if file not in masks)
    return Matches(files={rivals[0].path: (masks[0].path,)}, unused=spare)


def _undecided(rivals: Sequence[Named], question: str, hint: str) -> Matches:
    issues: list[Issue] = []
    for item in rivals:
        others = ", ".join(other.path.name for other in rivals if other is not item)
        reason = f"shares its stem with {others}: {question}" if others else question
        issues.append(Issue(shown(item.path), reason, hint))
    return Matches(undecided=frozenset(item.path for item in rivals), issues=tuple(issues))
