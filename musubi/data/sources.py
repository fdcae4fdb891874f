"""Where items come from: folders and JSONL files of pictures and clips with captions."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs

from musubi.core.errors import DataError, Issue, shown
from musubi.core.fields import as_path, did_you_mean, field
from musubi.core.spec import Spec
from musubi.data.sample import UNREAD, Record, kind_of

_MEDIA_KEYS = ("image_path", "video_path")
_CONTROL = re.compile(r"control_path(_\d+)?")


@attrs.frozen(kw_only=True)
class Listing:
    """What a source found: usable records, and an issue for each file or row that is not."""

    records: tuple[Record, ...] = ()
    issues: tuple[Issue, ...] = ()


@attrs.frozen(kw_only=True)
class Source(Spec, ABC):
    """List media files with their captions."""

    family: ClassVar[str] = "source"

    @abstractmethod
    def read(self) -> Listing:
        """Return all records in a fixed order.

        Raises:
            DataError: The source as a whole cannot be read or holds nothing.
        """


@attrs.frozen
class Folder(Source):
    """Take the pictures and clips of a folder; the caption of ``cat.png`` is in ``cat.txt`` beside it.

    ``caption_extension`` is appended to the file's stem; captions are UTF-8, stripped at both ends. Hidden files are
    left out; the order is that of the paths as text.

    Example:
        >>> from musubi import Folder
        >>> Folder("clips", recursive=True).caption_extension
        '.txt'
    """

    kind: ClassVar[str] = "folder"

    path: Path = attrs.field(converter=as_path)
    caption_extension: str = field(
        default=".txt", kw_only=True, check=lambda v: None if v else "must not be empty, e.g. '.txt'"
    )
    recursive: bool = attrs.field(default=False, kw_only=True)

    def read(self) -> Listing:
        files = sorted(self._files(), key=lambda path: path.as_posix())
        media = [path for path in files if kind_of(path) is not None]
        issues = [_unread(path) for path in files if path.suffix.lower() in UNREAD]
        if not media and not issues:
            hint = "pictures or clips go directly into it; for subfolders set recursive=True"
            raise DataError("nothing to train on", [Issue(shown(self.path), "holds no picture and no clip", hint)])
        records = [_recorded(issues, path, self._caption_file(path)) for path in media]
        return Listing(records=tuple(record for record in records if record is not None), issues=tuple(issues))

    def _files(self) -> Iterator[Path]:
        try:
            found = list(self.path.rglob("*") if self.recursive else self.path.iterdir())
        except OSError as error:
            hint = "check the path (and that the disk is mounted)"
            raise DataError(
                "cannot read folder", [Issue(shown(self.path), error.strerror or str(error), hint)]
            ) from error
        hidden = (path for path in found if path.relative_to(self.path).as_posix().startswith("."))
        left_out = set(hidden)
        yield from (path for path in found if path not in left_out and not path.name.startswith(".") and path.is_file())

    def _caption_file(self, path: Path) -> Path:
        return path.with_name(path.stem + self.caption_extension)


@attrs.frozen
class Jsonl(Source):
    """Take one item from each line of a JSONL file: ``{"image_path": "a.png", "caption": "a cat"}``, or ``video_path``.

    Paths are relative to the file's folder, or else, as the reference has it, to the working directory.
    ``control_path`` or ``control_path_0``, ``control_path_1`` ... are conditioning files in the order of their numbers.
    Blank lines are passed over; a bad row is an issue that names its line.
    """

    kind: ClassVar[str] = "jsonl"

    path: Path = attrs.field(converter=as_path)

    def read(self) -> Listing:
        records: list[Record] = []
        issues: list[Issue] = []
        for number, line in enumerate(self._lines(), start=1):
            if not line.strip():
                continue
            place = f"{shown(self.path)}:{number}"
            try:
                records.append(self._record(line, place))
            except DataError as error:
                issues += error.issues
        if not records and not issues:
            hint = 'write one row a line: {"image_path": "a.png", "caption": "..."}'
            raise DataError("nothing to train on", [Issue(shown(self.path), "has no row", hint)])
        return Listing(records=tuple(records), issues=tuple(issues))

    def _lines(self) -> list[str]:
        try:
            return self.path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            hint = "give an existing JSONL file in UTF-8"
            reason = error.strerror or str(error) if isinstance(error, OSError) else "is not UTF-8 text"
            raise DataError("cannot read rows", [Issue(shown(self.path), reason, hint)]) from error

    def _record(self, line: str, place: str) -> Record:
        row = _row(line, place)
        given = [key for key in _MEDIA_KEYS if key in row]
        if len(given) != 1:
            near = "" if given else did_you_mean(next(iter(row), ""), _MEDIA_KEYS)
            raise _bad(place, f"needs either image_path or video_path{near}", f"it has {', '.join(row) or 'no key'}")
        if not isinstance(row.get("caption"), str):
            raise _bad(place, "caption is missing", 'add "caption": "..." to the row')
        return Record(
            path=self._file(row[given[0]], place, given[0]),
            caption=row["caption"].strip(),
            place=place,
            controls=self._controls(row, place),
        )

    def _controls(self, row: Mapping[str, Any], place: str) -> dict[str, tuple[Path, ...]]:
        names = [key for key in row if key.startswith("control_path") and row[key]]
        odd = [key for key in names if not _CONTROL.fullmatch(key)]
        if odd:
            raise _bad(place, f"{odd[0]} is not a control", "number controls: control_path_0, control_path_1, ...")
        if "control_path" in names and "control_path_0" in names:
            names.remove("control_path_0")
        names.sort(key=lambda key: int(key.rpartition("_")[2]) if key != "control_path" else 0)
        return {"control": tuple(self._file(row[key], place, key) for key in names)} if names else {}

    def _file(self, value: object, place: str, key: str) -> Path:
        if not isinstance(value, str) or not value:
            raise _bad(place, f"{key} must be a path", f"got {value!r}")
        candidates = [self.path.parent / value, Path(value)]
        found = next((path for path in candidates if path.is_file()), None)
        if found is None:
            raise _bad(
                place,
                f"{key} names no file",
                f"{value} is neither beside {self.path.name} nor in the working directory",
            )
        if found.suffix.lower() in UNREAD or kind_of(found) is None:
            raise DataError("bad row", [attrs.evolve(_unread(found), path=place)])
        return found


def read_all(sources: Iterable[Source]) -> Listing:
    """Return what several sources found, one after the other."""
    listings = [source.read() for source in sources]
    return Listing(
        records=tuple(record for listing in listings for record in listing.records),
        issues=tuple(issue for listing in listings for issue in listing.issues),
    )


def _recorded(issues: list[Issue], path: Path, caption_file: Path) -> Record | None:
    """Return the record of a file with its caption; without one, add an issue instead."""
    try:
        caption = caption_file.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        issues.append(Issue(shown(path), "caption is missing", f"write {caption_file.name} beside it"))
    except UnicodeDecodeError:
        issues.append(Issue(shown(caption_file), "caption is not UTF-8", "save the file as UTF-8 text"))
    except OSError as error:
        issues.append(Issue(shown(caption_file), f"caption cannot be read: {error.strerror}", "check the file"))
    else:
        return Record(path=path, caption=caption, place=shown(path))
    return None


def _unread(path: Path) -> Issue:
    return Issue(
        shown(path), f"{path.suffix.lower() or 'a file without extension'} is not read", "convert it to PNG or MP4"
    )


def _row(line: str, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise _bad(place, "is not JSON", f"column {error.colno}: {error.msg}") from error
    if not isinstance(row, dict):
        raise _bad(place, "is not a JSON object", "write {...} on one line")
    return row


def _bad(place: str, message: str, hint: str) -> DataError:
    return DataError("bad row", [Issue(place, message, hint)])
