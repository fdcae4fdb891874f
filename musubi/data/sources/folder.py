"""Folders of pictures and clips with caption files beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import attrs

from musubi.core.errors import DataError, Issue, shown
from musubi.core.fields import as_path, field, one_of, optional
from musubi.data.sample import UNREAD, Kind, Record, kind_of
from musubi.data.sources.caption_files import find_captions, read_captions
from musubi.data.sources.companions import Matcher, find_companions, unused_notes
from musubi.data.sources.matching import Matches, Named, match_controls, match_masks
from musubi.data.sources.source import Listing, Source, unread
from musubi.data.sources.tree import Tree, walk

_EMPTY = "pictures or clips go directly into it; for subfolders set recursive=True"


def _optional_path(value: Path | str | None) -> Path | None:
    return None if value is None else as_path(value)


def _suffix(value: object) -> str | None:
    """Accept what can end a file's name."""
    if not isinstance(value, str) or not value:
        return "must not be empty, e.g. '.txt'"
    if "." not in value or any(letter in value for letter in "/\\\0"):
        return f"must be the end of a file's name, dot included, e.g. '.txt', got {value!r}"
    return None


@attrs.frozen
class Folder(Source):
    """Take the pictures and clips of a folder; the caption of ``cat.png`` is in ``cat.txt`` beside it.

    Captions are UTF-8, stripped at both ends; a file is one caption, however many lines it has. Hidden files are left
    out; the order is that of the paths as text.

    Args:
        path: The folder.
        caption_extension: What stands in place of the picture's own extension, e.g. ``.caption.txt``.
        recursive: Whether subfolders count, too.
        media: ``image`` or ``video`` takes the files of one kind only; None takes both.
        caption_lines: Whether every line that is not blank is a caption of its own, one of which is drawn each time.
        frame_folders: Whether a subfolder in which pictures lie is a clip, with ``<subfolder>.txt`` beside it.
        control: Where conditioning files are: for ``cat.png`` a ``cat.png`` or ``cat_0.png``, ``cat_1.png``...; for a
            clip one of the same name or a folder of frames. With subfolders, these are the same there.
        masks: Where masks are: for ``cat.png`` one picture ``cat.*``; what has none is trained as a whole.

    Example:
        >>> from musubi import Folder
        >>> Folder("clips", recursive=True).caption_extension
        '.txt'
    """

    kind: ClassVar[str] = "folder"

    path: Path = attrs.field(converter=as_path)
    caption_extension: str = field(default=".txt", kw_only=True, check=_suffix)
    recursive: bool = attrs.field(default=False, kw_only=True)
    media: Kind | None = field(default=None, kw_only=True, check=optional(one_of("image", "video")))
    caption_lines: bool = attrs.field(default=False, kw_only=True)
    frame_folders: bool = attrs.field(default=False, kw_only=True)
    control: Path | None = attrs.field(default=None, kw_only=True, converter=_optional_path)
    masks: Path | None = attrs.field(default=None, kw_only=True, converter=_optional_path)

    def problems(self) -> Iterable[Issue]:
        """Yield folders that are given twice."""
        if self.control is not None and self.control in (self.path, self.masks):
            yield Issue("control", f"{shown(self.control)} is given twice", "keep conditioning files apart")
        if self.masks is not None and self.masks == self.path:
            yield Issue("masks", f"{shown(self.masks)} is given twice", "keep masks apart")

    def read(self) -> Listing:
        beside = [path for path in (self.control, self.masks) if path is not None]
        depth = None if self.recursive else int(self.frame_folders)
        tree = walk(self.path, depth=depth, leave_out=beside)
        media = self._media(tree)
        issues = [*tree.issues, *_not_read(tree, media, self.caption_extension)]
        if not media and not issues:
            what = {None: "picture and no clip", "image": "picture", "video": "clip"}[self.media]
            raise DataError("nothing to train on", [Issue(shown(self.path), f"holds no {what}", _EMPTY)])
        control = self._companions(self.control, media, match_controls)
        masks = self._companions(self.masks, media, match_masks)
        unclear = control.undecided | masks.undecided
        captions = find_captions(media, tree, self.caption_extension)
        records: list[Record] = []
        for medium in media:
            try:
                if medium.path not in unclear:
                    records.append(self._record(medium, captions, control.files, masks.files))
            except DataError as error:
                issues += error.issues
        hint = "call it like the item it is for; subfolders are the same on both sides"
        notes = unused_notes([*control.unused, *masks.unused], hint)
        issues += [*control.issues, *masks.issues]
        return Listing(records=tuple(records), issues=tuple(issues), notes=tuple(notes))

    def _media(self, tree: Tree) -> list[Named]:
        """Return files, and folders of frames in place of the pictures in them, by path as text."""
        found: list[Named] = []
        for folder, files in tree.folders.items():
            media = [medium for medium in map(Named.file, files) if medium is not None]
            below = folder != tree.root
            if below and self.frame_folders and any(medium.kind == "image" for medium in media):
                found.append(Named.frames(folder))
                media = [medium for medium in media if medium.kind == "video"]
            if self.recursive or not below:
                found += media
        wanted = (medium for medium in found if self.media in {None, medium.kind})
        return sorted(wanted, key=lambda medium: medium.path.as_posix())

    def _companions(self, folder: Path | None, media: Sequence[Named], match: Matcher) -> Matches:
        """Return what a folder of conditioning files or masks holds for the media."""
        if folder is None:
            return Matches()
        others = {self.path, self.control, self.masks} - {folder, None}
        tree = walk(folder, depth=None if self.recursive else 1, leave_out=[path for path in others if path])
        found = find_companions(media, self.path, tree, match)
        return attrs.evolve(found, issues=(*tree.issues, *found.issues))

    def _record(
        self,
        medium: Named,
        captions: Mapping[Path, Path],
        controls: Mapping[Path, tuple[Path, ...]],
        masks: Mapping[Path, tuple[Path, ...]],
    ) -> Record:
        written = captions.get(medium.path)
        own = controls.get(medium.path)
        return Record(
            path=medium.path,
            captions=read_captions(written, by_line=self.caption_lines) if written is not None else (),
            place=shown(medium.path),
            remedy=f"write {medium.written}{self.caption_extension} beside it",
            controls={"control": own} if own else {},
            mask=next(iter(masks.get(medium.path, ())), None),
        )


def _not_read(tree: Tree, media: Sequence[Named], extension: str) -> list[Issue]:
    """Return an issue for each file that is meant as an item, by its format or by its caption, but cannot be one."""
    files = [path for found in tree.folders.values() for path in found]
    strange = [path for path in files if kind_of(path) is None and not path.name.endswith(extension)]
    if not strange:
        return []
    captions, used = set(files), {(medium.path.parent, medium.written) for medium in media}
    meant = (
        path
        for path in sorted(strange, key=Path.as_posix)
        if path.suffix.lower() in UNREAD
        or (path.with_name(path.stem + extension) in captions and (path.parent, path.stem) not in used)
    )
    return [unread(path) for path in meant]
