"""Dataset files of the reference, read as they are: TOML or JSON, with every problem in them told at once."""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import attrs

from musubi.architecture import Architecture
from musubi.compat.checks import Check
from musubi.compat.dataset_table import CHECK, ReferenceDataset
from musubi.compat.image_table import ReferenceImages
from musubi.compat.names import short_name
from musubi.compat.video_table import ReferenceVideos
from musubi.core.errors import ConfigError, Issue, shown
from musubi.core.fields import did_you_mean
from musubi.data.dataset import Dataset

logger = logging.getLogger(__name__)

Table = Mapping[str, object]

_TOP = ("general", "datasets")
_GENERAL = ("resolution", "caption_extension", "batch_size", "num_repeats", "enable_bucket", "bucket_no_upscale")
_IMAGE_SOURCES = ("image_directory", "image_jsonl_file")
_VIDEO_SOURCES = ("video_directory", "video_jsonl_file")
_PATHS = (*_IMAGE_SOURCES, *_VIDEO_SOURCES, "cache_directory", "control_directory")
_HINTS = (
    ("escape", "write Windows paths with forward slashes, or in single quotes"),
    ("", "mend the line that is named"),
)


def load_datasets(path: Path | str, *, model: Architecture) -> tuple[Dataset, ...]:
    r"""Return the datasets of a dataset file of musubi-tuner, for a model's sizes and lengths.

    What is in the file but has no effect is told to the logger ``musubi``.

    Raises:
        ConfigError: The file cannot be read, describes no dataset, or has values that cannot be trained with; lists all
            problems, each with its place in the file.

    Example:
        >>> from pathlib import Path
        >>> from musubi import Wan, compat
        >>> text = '[[datasets]]\nimage_directory = "cats"\ncaption_extension = ".txt"\nnum_repeats = 4\n'
        >>> _ = Path("cats.toml").write_text(text, encoding="utf-8")
        >>> [dataset.repeats for dataset in compat.load_datasets("cats.toml", model=Wan.t2v_14b())]
        [4]
    """
    tables = load_dataset_file(path, model=model)
    for issue in notes(tables):
        logger.warning("%s: %s", shown(path), issue)
    return _datasets(tables, model, path)


def load_dataset_file(path: Path | str, *, model: Architecture) -> tuple[ReferenceDataset, ...]:
    """Return the tables of a dataset file under the reference's own names, as ``load_datasets`` reads them.

    A path in the file is relative to the working directory, as in the reference, or else to the file.

    Raises:
        ConfigError: The file cannot be read, describes no dataset, or holds what the reference refuses or breaks on.
    """
    place = Path(path)
    try:
        tables = parse(_read(place), architecture=short_name(model))
    except ConfigError as error:
        raise ConfigError(shown(path), error.issues) from error
    if not tables:
        raise ConfigError(shown(path), [Issue("datasets", "there is none", "add a [[datasets]] table")])
    return tuple(_located(table, place.parent) for table in tables)


def parse(values: Table, *, architecture: str) -> tuple[ReferenceDataset, ...]:
    """Return the datasets that a parsed file describes: own values first, then those under ``general``, then defaults.

    ``architecture`` is the reference's short name, e.g. ``wan``.

    Raises:
        ConfigError: With every problem found, each under its path, e.g. ``datasets[0].target_frames[1]``.

    Example:
        >>> from musubi import compat
        >>> values = {"general": {"resolution": 512}, "datasets": [{"video_directory": "clips"}]}
        >>> compat.parse(values, architecture="wan")[0].resolution
        (512, 512)
    """
    values, issues = _table(values, "")
    issues += [Issue(name, f"unknown key{did_you_mean(name, _TOP)}") for name in values if name not in _TOP]
    general, problems = _table(values.get("general", {}), "general")
    issues += problems
    issues += _general_issues(general)
    tables, problems = _tables(values.get("datasets", []))
    issues += problems
    for i, table in tables.items():
        issues += (issue.under(f"datasets[{i}]") for issue in _table_issues(table))
    if issues:
        raise ConfigError("dataset file", issues)
    return tuple(_made(general, table, architecture) for table in tables.values())


def notes(tables: Sequence[ReferenceDataset]) -> tuple[Issue, ...]:
    """Return what is in a file but has no effect, or another than one would think."""
    found = [issue.under(f"datasets[{i}]") for i, table in enumerate(tables) for issue in table.notes()]
    folders = [table.cache_folder for table in tables]
    for i, folder in enumerate(folders):
        if folder is not None and folder in folders[:i]:
            message = f"is that of datasets[{folders.index(folder)}], too, which the reference refuses"
            hint = "no harm: one cache holds several datasets; the reference's own caches need a folder each"
            found.append(Issue(f"datasets[{i}].cache_directory", message, hint))
    return tuple(found)


def _datasets(tables: Sequence[ReferenceDataset], model: Architecture, path: Path | str) -> tuple[Dataset, ...]:
    made: list[Dataset] = []
    issues: list[Issue] = []
    for i, table in enumerate(tables):
        try:
            made.append(table.dataset(model.geometry))
        except ConfigError as error:
            issues += (issue.under(f"datasets[{i}]") for issue in error.issues)
    if issues:
        raise ConfigError(shown(path), issues)
    return tuple(made)


def _read(path: Path) -> Table:
    suffix = path.suffix.lower()
    if suffix not in {".toml", ".json"}:
        raise ConfigError("", [Issue("", "must end in .toml or .json")])
    try:
        text = path.read_text(encoding="utf-8-sig")
        found: object = json.loads(text) if suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError("", [Issue("", error.strerror or str(error), "give an existing dataset file")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError("", [Issue("", "is not UTF-8 text", "save the file as UTF-8")]) from error
    except (ValueError, RecursionError) as error:
        hint = next(hint for word, hint in _HINTS if word in str(error))
        raise ConfigError("", [Issue("", f"is not valid {suffix[1:].upper()}: {error}", hint)]) from error
    if not isinstance(found, dict):
        raise ConfigError("", [Issue("", "must be an object with general and datasets")])
    return cast(Table, found)


def _located(table: ReferenceDataset, folder: Path) -> ReferenceDataset:
    """Return a table whose paths that only exist beside the file lead there."""
    named = {name: getattr(table, name, None) for name in _PATHS}
    moved = {n: str(folder / p) for n, p in named.items() if p and not Path(p).exists() and (folder / p).exists()}
    return table.replace(**moved)


def _table(value: object, path: str) -> tuple[Table, list[Issue]]:
    if isinstance(value, dict):
        return cast(Table, value), []
    return {}, [Issue(path, f"must be a table, got {value!r}")]


def _tables(value: object) -> tuple[dict[int, Table], list[Issue]]:
    """Return the tables of a list by their places, and an issue for whatever is none."""
    if not isinstance(value, list):
        return {}, [Issue("datasets", "must be a list of tables", "write [[datasets]] with two brackets")]
    read = [_table(member, f"datasets[{i}]") for i, member in enumerate(cast(list[object], value))]
    return {i: table for i, (table, problems) in enumerate(read) if not problems}, [p for _, ps in read for p in ps]


def _general_issues(general: Table) -> Iterator[Issue]:
    known = _all_checks()
    for name, value in general.items():
        if name in _GENERAL:
            issues = known[name](value)
        elif name in known:
            issues = iter([Issue("", "is not general", "move it into the [[datasets]] it belongs to")])
        else:
            issues = iter([Issue("", f"unknown key{did_you_mean(name, _GENERAL)}")])
        yield from (issue.under(f"general.{name}") for issue in issues)


def _table_issues(table: Table) -> Iterator[Issue]:
    source = next((name for name in (*_VIDEO_SOURCES, *_IMAGE_SOURCES) if name in table), None)
    if source is None:
        yield Issue("", "names no source", f"add one of {', '.join((*_IMAGE_SOURCES, *_VIDEO_SOURCES))}")
    known = _all_checks() if source is None else _checks(_kind(table))
    for name, value in table.items():
        if name in known:
            issues = known[name](value)
        elif name in _all_checks():
            issues = iter([Issue("", f"does not go with {source}", "make two [[datasets]]: pictures and clips")])
        else:
            issues = iter([Issue("", f"unknown key{did_you_mean(name, known)}")])
        yield from (issue.under(name) for issue in issues)


def _kind(table: Table) -> type[ReferenceDataset]:
    return ReferenceVideos if any(name in table for name in _VIDEO_SOURCES) else ReferenceImages


def _checks(cls: type[ReferenceDataset]) -> dict[str, Check]:
    return {a.name: a.metadata[CHECK] for a in attrs.fields(cls) if CHECK in a.metadata}


def _all_checks() -> dict[str, Check]:
    return {**_checks(ReferenceVideos), **_checks(ReferenceImages)}


def _made(general: Table, table: Table, architecture: str) -> ReferenceDataset:
    values = cast(dict[str, Any], {**general, **table})
    return _kind(table)(architecture=architecture, **values)
