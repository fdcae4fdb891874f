"""One cache and one report of the whole corpus: what is good is in the cache, what is bad in what it dropped."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
import pytest

from musubi.cache.cache import Cache
from musubi.data.scan import scan
from musubi.testing.toy import Toy
from tests.corpus.case import Case, Fault
from tests.corpus.conftest import Corpus
from tests.corpus.corpus import CASES
from tests.corpus.run import within

USED = [case for case in CASES if not case.refused]


@attrs.frozen(kw_only=True)
class Cached:
    """A cache of all cases: by case the names of the files that are in it, and what it says of those that are not."""

    cache: Cache
    kept: Mapping[str, set[str]]
    dropped: Mapping[str, dict[str, str]]
    warned: tuple[str, ...]


@pytest.fixture(scope="module")
def cached(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Cached:
    """Return a cache of all cases, built twice from the folder that they are in."""
    cache = Cache(tmp_path_factory.mktemp("cached") / "cache", model=Toy())
    cases = [case for case in USED if case.needs() is None]
    roots = {case.name: corpus.root(case).relative_to(corpus.folder) for case in cases}
    datasets = [case.read(roots[case.name]) for case in cases]
    places: dict[str, str] = {}

    def build() -> None:
        for item in scan(datasets, progress=False).items:
            path = item.path.relative_to(corpus.folder) if item.path.is_absolute() else item.path
            places[item.name] = os.path.normpath(path).replace(os.sep, "/")
        for _ in range(2):
            cache.build(datasets, progress=False)

    with contextlib.chdir(corpus.folder), warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        within(build, seconds=300)
    held = [places[entry.item.name] for entry in cache.items()]
    dropped = {issue.path: str(issue) for issue in cache.dropped}
    return Cached(
        cache=cache,
        kept={name: set(below(root, held)) for name, root in roots.items()},
        dropped={
            name: {at: dropped[path] for at, path in below(root, dropped).items()} for name, root in roots.items()
        },
        warned=tuple(str(warning.message) for warning in leaked),
    )


def below(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return the paths that lie in a folder, by what they are there."""
    start = f"{root.as_posix()}/"
    return {path.removeprefix(start): path for path in paths if path.startswith(start)}


@pytest.mark.parametrize("case", USED, ids=lambda case: case.name)
def test_a_cache_holds_what_is_good_and_names_what_is_not(case: Case, cached: Cached, corpus: Corpus) -> None:
    corpus.root(case)  # or else skip
    lost = {path: fault for path, fault in case.faults.items() if matters(fault)}
    told = {**case.reported, **{fault.place or path: fault.message for path, fault in lost.items()}}

    dropped = cached.dropped[case.name]

    assert cached.kept[case.name] == {kept.path for kept in case.expected} - lost.keys()
    assert dropped.keys() == told.keys()
    assert all(text in dropped[path] for path, text in told.items()), dropped


def matters(fault: Fault) -> bool:
    """Return whether a fault is met while encoding; the toy does not read conditioning files."""
    return not fault.message.startswith("control ")


def test_a_cache_of_the_whole_corpus_can_be_trained_on(cached: Cached) -> None:
    names = {name for batch in cached.cache.loader(batch_size=64).epoch(0) for name in batch}

    assert names == {entry.item.name for entry in cached.cache.items()}
    assert cached.cache.verify(progress=False) == ()
    assert cached.warned == ()


def test_a_page_of_the_whole_corpus_can_be_saved(corpus: Corpus, tmp_path: Path) -> None:
    datasets = [case.read(corpus.root(case)) for case in USED if case.needs() is None]

    report = scan(datasets, progress=False).report()
    page = report.save(tmp_path / "report.html").read_text(encoding="utf-8")

    assert f"{len(report.scan.dropped)} dropped" in str(report)
    assert corpus.folder.as_posix() not in page
