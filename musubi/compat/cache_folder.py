"""A cache folder of the reference as a cache of ours: its files stay as they are, a manifest is put beside them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import attrs
from tqdm.auto import tqdm

from musubi.architecture import Architecture, Size
from musubi.cache import manifest as manifests
from musubi.cache.cache import Cache
from musubi.cache.format import SUFFIX
from musubi.compat.cache_entry import IMPORTED, Entry, manifest_of
from musubi.compat.cache_file import CacheFile, LatentFile, read_cache_file, read_latent_file
from musubi.compat.names import short_name, text_stem
from musubi.core.errors import CacheError, ConfigError, Issue, shown
from musubi.core.fields import count
from musubi.data.sample import Window

logger = logging.getLogger(__name__)

A = TypeVar("A", bound=Architecture)
Group = tuple[str, Window | None, Size]
"""Latent files of one picture or window: stem, window and size."""

_PATIENCE_S = 1.0
"""How long an import takes before it shows a progress bar."""


def import_cache(
    folder: Path | str, *, model: A, batch_size: int = 1, repeats: int = 1, progress: bool = True
) -> Cache[A]:
    """Return a cache of what musubi-tuner encoded into a folder: the ``cache_directory`` of one dataset.

    Nothing is encoded, moved or changed; a ``manifest.json`` is written beside the files. Every file is read once, for
    its checksum. What cannot be trained with is left out, told to the logger ``musubi``, and kept in ``cache.dropped``.

    Args:
        folder: The folder with the reference's files.
        model: The architecture that they were cached for.
        batch_size: How many items of one bucket a batch holds.
        repeats: How often an epoch sees every item.
        progress: Whether a bar is shown.

    Raises:
        ConfigError: ``batch_size`` or ``repeats`` is below 1.
        CacheError: The folder cannot be read or written, holds nothing for the model, or holds a cache that was built.

    Example:
        >>> from musubi import Wan, compat
        >>> compat.import_cache("clips_cache", model=Wan.t2v_14b())
        Traceback (most recent call last):
        musubi.core.errors.CacheError: cannot import: clips_cache: No such file or directory (hint: check the path)
    """
    place = Path(folder)
    _check_numbers(batch_size=batch_size, repeats=repeats)
    _check_free(place)
    found = _look_through(place, model, progress=progress)
    strays, latents = _of_one_kind(found.latents)
    entries = [_entry(group, found, model) for group in _groups(latents).values()]
    usable = [entry for entry in entries if isinstance(entry, Entry)]
    problems = [*found.problems, *strays, *(entry for entry in entries if isinstance(entry, Issue))]
    for issue in problems:
        logger.warning("left out: %s", issue)
    if not usable:
        raise CacheError("nothing to import", problems or [_nothing(place, model)])
    notes = [*_rivals(usable), *_orphans(found)]
    manifest = manifest_of(
        _told_apart(usable), model, batch_size=batch_size, repeats=repeats, problems=problems, notes=notes
    )
    manifests.save(place, manifest)
    return Cache(place, model=model)


@attrs.frozen(kw_only=True, eq=False)
class _Found:
    """The usable files of a folder, text by stem, and what is wrong with the others."""

    latents: Sequence[LatentFile]
    texts: Mapping[str, CacheFile]
    problems: Sequence[Issue]


def _check_numbers(**numbers: int) -> None:
    wrong = [Issue(name, problem) for name, number in numbers.items() if (problem := count(1)(number)) is not None]
    if wrong:
        raise ConfigError("import_cache", wrong)


def _check_free(folder: Path) -> None:
    """Refuse a folder whose manifest lists what a build made; one of an earlier import is written anew."""
    try:
        outputs = manifests.load(folder).outputs if manifests.exists(folder) else {}
    except CacheError:
        return
    if not all(fingerprint.startswith(IMPORTED) for fingerprint in outputs):
        hint = "open it with Cache(folder, model=...)"
        raise CacheError("cannot import", [Issue(shown(folder), "holds a cache that musubi built", hint)])


def _look_through(folder: Path, model: Architecture, *, progress: bool) -> _Found:
    """Read the files that are the model's by their names."""
    architecture = short_name(model)
    latents: list[LatentFile] = []
    texts: dict[str, CacheFile] = {}
    problems: list[Issue] = []
    paths = [
        path
        for path in _files(folder)
        if path.name.endswith((f"_{architecture}{SUFFIX}", f"_{architecture}_te{SUFFIX}"))
    ]
    for path in tqdm(paths, desc="import", unit="file", delay=_PATIENCE_S, disable=not progress):
        stem = text_stem(path.name, architecture=architecture)
        try:
            if stem is None:
                latents.append(read_latent_file(path, model=model))
            else:
                texts[stem] = read_cache_file(path, model=model, text=True)
        except CacheError as error:
            problems += error.issues
    return _Found(latents=latents, texts=texts, problems=problems)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))
    except OSError as error:
        reason = error.strerror or str(error)
        raise CacheError("cannot import", [Issue(shown(folder), reason, "check the path")]) from error


def _of_one_kind(latents: Sequence[LatentFile]) -> tuple[list[Issue], list[LatentFile]]:
    """Keep what most of the files are, pictures or clips, and report the rest: another dataset left it behind."""
    clips = [latent for latent in latents if latent.name.window is not None]
    pictures = [latent for latent in latents if latent.name.window is None]
    kept, strays = (pictures, clips) if len(pictures) > len(clips) else (clips, pictures)
    kinds = ("a clip", "pictures") if strays is clips else ("a picture", "clips")
    message = f"is of {kinds[0]} in a folder of {kinds[1]}"
    hint = "left from another dataset? import it from a folder of its own"
    return [Issue(shown(latent.file.path), message, hint) for latent in strays], kept


def _groups(latents: Iterable[LatentFile]) -> dict[Group, list[LatentFile]]:
    """Gather the sections of each window; what has none is a group of one. The order of names is that of sections."""
    groups: dict[Group, list[LatentFile]] = {}
    for latent in latents:
        groups.setdefault((latent.name.stem, latent.name.window, latent.name.size), []).append(latent)
    return groups


def _entry(group: Sequence[LatentFile], found: _Found, model: Architecture) -> Entry | Issue:
    """Return what is trained of a picture or window, or why it cannot be."""
    name, path = group[0].name, shown(group[0].file.path)
    text = found.texts.get(name.stem)
    if text is None:
        file = f"{name.stem}_{short_name(model)}_te{SUFFIX}"
        return Issue(path, "has no text", f"{file} is missing or cannot be used; cache the captions, too")
    wanted, there = _sections(group[0], model), [latent.name.section for latent in group]
    if there != wanted:
        return Issue(path, f"has {len(there)} sections of {len(wanted)}", "cache this clip again")
    return Entry(name=name.stem if name.window is None else f"{name.stem}_{name.window}", latents=group, text=text)


def _sections(latent: LatentFile, model: Architecture) -> Sequence[int | None]:
    """Return the numbers of the sections that a window has: as many as fit behind its first latent frame."""
    name = latent.name
    if name.window is None or name.section is None:
        return [None]
    frames = model.geometry.latent_shape(name.size, name.window.count)[1]
    return list(range((frames - 1) // latent.frames))


def _told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Put the size behind names that several have."""
    names = Counter(entry.name for entry in entries)
    return [attrs.evolve(entry, name=_sized(entry)) if names[entry.name] > 1 else entry for entry in entries]


def _sized(entry: Entry) -> str:
    width, height = entry.latents[0].name.size
    return f"{entry.name}_{width}x{height}"


def _rivals(entries: Sequence[Entry]) -> Iterator[Issue]:
    """Yield what is there in several sizes: two files of one name, or what an earlier resolution left behind."""
    names = Counter(entry.name for entry in entries)
    for entry in entries:
        if names[entry.name] > 1:
            hint = "all are trained; if the file or the resolution was changed, remove the old one and import again"
            yield Issue(shown(entry.latents[0].file.path), f"is one of {names[entry.name]} called {entry.name}", hint)


def _orphans(found: _Found) -> Iterator[Issue]:
    """Yield the text that no latents go with."""
    used = {latent.name.stem for latent in found.latents}
    for stem, text in found.texts.items():
        if stem not in used:
            yield Issue(shown(text.path), "is text without latents", "too short a clip, perhaps, or not cached yet")


def _nothing(folder: Path, model: Architecture) -> Issue:
    others = sorted({path.stem.removesuffix("_te").rpartition("_")[2] for path in _files(folder)})
    there = f", only of {', '.join(others)}" if others else ""
    hint = "give the cache_directory of a dataset, and the model it was cached for"
    return Issue(shown(folder), f"holds no cache of {short_name(model)}{there}", hint)
