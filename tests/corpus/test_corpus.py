"""Every case of the corpus, three ways: a scan, a thorough scan, and decoding each item."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from musubi.core.errors import DataError, Issue
from musubi.data.media.loading import load_sample
from musubi.data.report.report import Report
from musubi.data.sample import Item
from musubi.data.scan import Scan
from tests.corpus.case import Case, Kept
from tests.corpus.conftest import Corpus
from tests.corpus.corpus import CASES
from tests.corpus.paint import Pixels, number_of
from tests.corpus.run import place, relative, within


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_good_is_kept_and_what_is_bad_is_named(
    case: Case, corpus: Corpus, capfd: pytest.CaptureFixture[str]
) -> None:
    root = corpus.root(case)
    capfd.readouterr()

    within(lambda: walked(case, root))

    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_there_are_enough_cases_and_no_two_of_one_name() -> None:
    names = [case.name for case in CASES]

    assert len(names) >= 90
    assert len(set(names)) == len(names)


def walked(case: Case, root: Path) -> None:
    """Scan, scan thoroughly and decode; nothing but a ``MusubiError`` may be raised, and no warning be given."""
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        dataset = case.read(root)
        if case.refused:
            with pytest.raises(DataError) as refusal:
                dataset.scan(progress=False)
            assert case.refused in relative(str(refusal.value), root)
            assert all(issue.hint and str(issue).isprintable() for issue in refusal.value.issues)
        else:
            plain, thorough = dataset.scan(progress=False), dataset.scan(thorough=True, progress=False)
            check_scan(case, plain, root)
            check_report(case, plain.report())
            check_thorough(case, thorough, root)
            for item in plain.items:
                check_decoded(case, item, root)
    assert [str(warning.message) for warning in leaked] == []


def check_scan(case: Case, scan: Scan, root: Path) -> None:
    assert {place(item, root) for item in scan.items} == {kept.path for kept in case.expected}
    assert sorted(facts(item, root) for item in scan.items) == sorted(map(wanted, case.expected))
    check_issues(scan.dropped, case.reported, root)
    assert not {place(item, root) for item in scan.items} & {relative(issue.path, root) for issue in scan.dropped}
    check_notes(case, scan, root)
    assert len({item.name for item in scan.items}) == len(scan.items)
    names = {item.media for item in scan.items}
    assert len({name.casefold() for name in names}) == len(names)


def check_thorough(case: Case, scan: Scan, root: Path) -> None:
    """A damaged file is left out and named; what only decoding can show is still there."""
    unmasked = {fault.place or path: fault.message for path, fault in case.unmasked.items()}

    assert {place(item, root) for item in scan.items} == {k.path for k in case.expected} - set(case.unmasked)
    check_issues(scan.dropped, {**case.reported, **unmasked}, root)


def check_report(case: Case, report: Report) -> None:
    """Whatever files are called, a report of them can be printed and shown, and names what is left out."""
    text, card = str(report), report._repr_html_()

    assert (text + card).encode("utf-8")
    assert all(path.rpartition("/")[2] in text for path in case.reported)


def check_decoded(case: Case, item: Item, root: Path) -> None:
    fault = case.faults.get(place(item, root))
    if fault is not None:
        with pytest.raises(DataError) as failure:
            load_sample(item)
        check_issues(failure.value.issues, {fault.place or place(item, root): fault.message}, root)
        return
    sample = load_sample(item)
    assert sample.pixels is not None
    width, height = item.bucket
    assert sample.pixels.shape == (len(item.frames), height, width, 3)
    assert sample.caption == item.captions[0]
    loaded = {role: len(controls) for role, controls in sample.controls.items()}
    assert loaded == {role: len(controls) for role, controls in item.controls.items()}
    assert (sample.mask is None) == (item.mask is None)
    for kept in case.expected:
        if kept.path == place(item, root):
            check_pixels(kept, sample.pixels.numpy())


def check_pixels(kept: Kept, frames: Pixels) -> None:
    height, width = frames.shape[1:3]
    if kept.numbers is not None:
        assert tuple(number_of(frame) for frame in frames) == kept.numbers
    if kept.corners is not None:
        rows, columns = (height // 4, height - height // 4), (width // 4, width - width // 4)
        found = [frames[0, row - 1 : row + 2, column - 1 : column + 2] for row in rows for column in columns]
        means = np.stack([patch.reshape(-1, 3).mean(0) for patch in found])
        assert np.abs(means - np.array(kept.corners)).max() <= kept.tolerance, means.round().tolist()


def facts(item: Item, root: Path) -> tuple[object, ...]:
    """Return what a case says of an item, as it is."""
    controls = tuple(relative(control.path.as_posix(), root) for control in item.controls.get("control", ()))
    mask = None if item.mask is None else relative(item.mask.as_posix(), root)
    return (place(item, root), item.size, item.frames, item.captions, controls, str(mask), item.weight)


def wanted(kept: Kept) -> tuple[object, ...]:
    """Return what a case says of an item, as it must be."""
    return (kept.path, kept.size, kept.frames, kept.said, kept.controls, str(kept.mask), kept.weight)


def check_issues(issues: Sequence[Issue], expected: Mapping[str, str], root: Path) -> None:
    """Each place is named, none else, with what is wrong and a way out."""
    found = {relative(issue.path, root): issue for issue in issues}

    assert found.keys() == expected.keys(), found
    assert len(found) == len(issues)
    assert all(expected[path] in str(issue) for path, issue in found.items()), found
    assert all(issue.hint and str(issue).isprintable() for issue in issues), found


def check_notes(case: Case, scan: Scan, root: Path) -> None:
    """What is noted is what the case says; the neighbours are beyond reproach."""
    notes: dict[str, str] = {}
    for issue in scan.notes:
        at = relative(issue.path, root)
        notes[at] = f"{notes.get(at, '')} {issue}"

    assert all(text in notes.get(at, "") for at, text in case.noted.items()), notes
    assert all(text.isprintable() for text in notes.values())
    assert not {kept.path for kept in case.neighbours} & (notes.keys() - case.noted.keys()), notes
