"""Looking at a dataset's files without training on them: which items there are, and what was dropped and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from tqdm.auto import tqdm

from musubi.core.errors import DataError, Issue, shown
from musubi.core.events import Callback, Progress
from musubi.data.items import Probes, find_items
from musubi.data.sample import Item, Probe, Record, Split, labels
from musubi.data.sources.folder import Folder
from musubi.data.sources.source import Listing, read_all

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.data.dataset import Dataset
    from musubi.data.media.resize import Pixels
    from musubi.data.report.report import Report

_PATIENCE_S = 1.0
"""How long a scan takes before it shows a progress bar."""


def _number(values: Sized) -> str:
    """Show how many there are: thousands of items would fill a notebook."""
    return f"<{len(values)}>"


@attrs.frozen(kw_only=True)
class Scan:
    """What a dataset holds: the items that would be trained, and an issue for everything that would not.

    ``notes`` are about items that are kept: enlarged, retimed, nearly the same as another, with too long a caption.
    """

    items: tuple[Item, ...] = attrs.field(repr=_number)
    dropped: tuple[Issue, ...] = attrs.field(default=(), repr=_number)
    notes: tuple[Issue, ...] = attrs.field(default=(), repr=_number)

    @property
    def buckets(self) -> Mapping[str, int]:
        """How many items each bucket has, largest bucket first, e.g. ``{"832x480x25": 120}``."""
        return dict(Counter(item.bucket_label for item in self.items).most_common())

    def report(self) -> Report:
        """Return the scan in words, as a card, as figures and as a page."""
        from musubi.data.report.report import Report

        return Report(scan=self)

    def __len__(self) -> int:
        return len(self.items)

    def _repr_html_(self) -> str:
        return self.report()._repr_html_()  # pyright: ignore[reportPrivateUsage]


class _Files:
    """Looks into every file anew."""

    def probe(self, path: Path) -> Probe:
        from musubi.data.media.loading import probe

        return probe(path)


@attrs.frozen(kw_only=True)
class _Found:
    """A record of one of the datasets, and whether its place says that it is held out."""

    dataset: Dataset
    record: Record
    held_out: bool


def scan(
    datasets: Sequence[Dataset],
    *,
    thorough: bool = False,
    model: Architecture | None = None,
    on: Sequence[Callback] = (),
    memory: Probes | None = None,
    progress: bool = True,
) -> Scan:
    """Return the items of datasets in the order of their sources.

    ``memory`` may remember what files hold. Names are unique over all the datasets.

    Raises:
        DataError: A source cannot be read, or holds nothing.
    """
    listings = [_listing(dataset) for dataset in datasets]
    dropped = [issue for listing, _ in listings for issue in listing.issues]
    notes = [note for listing, _ in listings for note in listing.notes]
    found = [one for _, records in listings for one in records]
    names = labels([one.record.path for one in found])
    items: list[Item] = []
    probes = memory or _Files()
    with tqdm(total=len(found), desc="scan", unit="file", delay=_PATIENCE_S, disable=not progress) as bar:
        for done, (one, name) in enumerate(zip(found, names, strict=True), start=1):
            try:
                result = find_items(one.dataset, one.record, name, probes)
                items += result.items
                notes += result.notes
            except DataError as error:
                dropped += error.issues
            bar.update()
            for callback in on:
                callback(Progress(task="scan", done=done, total=len(names), detail=name))
    kept = _divided(items, found, names)
    if thorough:
        kept, damaged, alike = _looked_at(kept, progress=progress)
        dropped += damaged
        notes += alike
    if model is not None:
        notes += _too_long(kept, model)
    return Scan(items=tuple(kept), dropped=tuple(dropped), notes=tuple(notes))


def _listing(dataset: Dataset) -> tuple[Listing, Sequence[_Found]]:
    """Return what a dataset's sources list; a folder of held-out files that they do not reach is one more source."""
    listing, rule = read_all(dataset.sources), dataset.validation
    found = [
        _Found(dataset=dataset, record=record, held_out=rule is not None and rule.holds(record.path))
        for record in listing.records
    ]
    if rule is None or rule.folder is None or any(one.held_out for one in found):
        return listing, found
    further = _validation_folder(dataset, rule.folder).read()
    found += [_Found(dataset=dataset, record=record, held_out=True) for record in further.records]
    issues, notes = (*listing.issues, *further.issues), (*listing.notes, *further.notes)
    return attrs.evolve(listing, issues=issues, notes=notes), found


def _validation_folder(dataset: Dataset, folder: Path) -> Folder:
    """Return the folder as a source like the dataset's own first folder."""
    for source in dataset.sources:
        if isinstance(source, Folder):
            return source.replace(path=folder, control=None, masks=None)
    return Folder(folder)


def _divided(items: Sequence[Item], found: Sequence[_Found], names: Sequence[str]) -> list[Item]:
    """Hold out what any of the datasets holds out, of all of them: by its place, or a share of its own usable files.

    A file is one however often it is listed, so that none is trained on at another resolution or with other words.
    """
    if all(one.dataset.validation is None for one in found):
        return list(items)
    files = {name: one.record.path.resolve() for one, name in zip(found, names, strict=True)}
    held_out = {files[name] for one, name in zip(found, names, strict=True) if one.held_out}
    held_out |= _shares(found, files, usable={item.media for item in items})
    split: Mapping[bool, Split] = {True: "validation", False: "train"}
    return [attrs.evolve(item, split=split[files[item.media] in held_out]) for item in items]


def _shares(found: Sequence[_Found], files: Mapping[str, Path], *, usable: Collection[str]) -> set[Path]:
    """Return the files that make up the shares that datasets want; ``files`` are those of ``found``, by name."""
    listed = {file: one.record.path for one, file in zip(found, files.values(), strict=True)}
    label = dict(zip(listed, labels(list(listed.values())), strict=True))
    chosen: set[Path] = set()
    for dataset in {id(one.dataset): one.dataset for one in found}.values():
        rule = dataset.validation
        if rule is not None and rule.share:
            pairs = zip(found, files.items(), strict=True)
            own = {label[file]: file for one, (name, file) in pairs if one.dataset is dataset and name in usable}
            chosen |= {own[name] for name in rule.chosen(own)}
    return chosen


def _looked_at(items: Sequence[Item], *, progress: bool) -> tuple[list[Item], list[Issue], list[Issue]]:
    """Decode the beginning of every file: return the items that can be, the damaged files, and the look-alikes.

    Conditioning files and masks are decoded, too.
    """
    from musubi.data.report.likeness import near_duplicates

    first = {item.media: item for item in reversed(items)}
    damaged: dict[str, Sequence[Issue]] = {}
    found = near_duplicates(_beginnings(list(reversed(first.values())), damaged, progress=progress))
    alike = [issue for group in found for issue in _alike([first[media] for media in group])]
    return (
        [item for item in items if item.media not in damaged],
        [issue for issues in damaged.values() for issue in issues],
        alike,
    )


def _beginnings(
    items: Sequence[Item], damaged: dict[str, Sequence[Issue]], *, progress: bool
) -> Iterator[tuple[str, Pixels]]:
    """Yield the first frame of each file by its media's name; what is wrong with the others goes to ``damaged``."""
    from musubi.data.media.loading import load_sample

    for item in tqdm(items, desc="look", unit="file", delay=_PATIENCE_S, disable=not progress):
        try:
            pixels = load_sample(attrs.evolve(item, picked=item.frames[:1])).pixels
        except DataError as error:
            damaged[item.media] = error.issues
        else:
            assert pixels is not None
            yield item.media, pixels[0].numpy()


def _alike(group: Sequence[Item]) -> Iterator[Issue]:
    for item in group[1:]:
        hint = f"looks like {shown(group[0].path)}; keep one, or repeat it on purpose"
        yield Issue(shown(item.path), "near-duplicate", hint)


def _too_long(items: Sequence[Item], model: Architecture) -> Iterator[Issue]:
    """Yield the captions that the model's text encoder does not read to their end."""
    captions = list(dict.fromkeys(caption for item in items for caption in item.captions))
    lengths = model.codec().caption_lengths(captions)
    if lengths is None:
        return
    long = {c: n for c, n in zip(captions, lengths.tokens, strict=True) if n > lengths.limit}
    told: set[str] = set()
    for item in items:
        for caption in item.captions:
            if caption in long and item.media not in told:
                told.add(item.media)
                hint = f"{long[caption]} tokens, the text encoder reads {lengths.limit}; shorten it"
                yield Issue(shown(item.path), "caption is too long", hint)
