from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.cache.records import (
    CachedFile,
    CachedItem,
    Output,
    is_output_line,
    issue_line,
    issue_of,
    item_line,
    item_of,
    output_line,
    output_of,
    shareable,
)
from musubi.core.errors import Issue
from musubi.data.sample import Control, Item, Window

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in {".", ".."}
)
sizes = st.tuples(st.integers(1, 9999), st.integers(1, 9999))
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: Path(*parts))
numbers = st.floats(0, 1e6, allow_nan=False)
items = st.builds(
    Item,
    name=words,
    media=words,
    path=paths,
    kind=st.sampled_from(["image", "video"]),
    captions=st.lists(words, min_size=1, max_size=3).map(tuple),
    size=sizes,
    bucket=sizes,
    dropout=st.floats(0, 1),
    window=st.builds(Window, st.integers(0, 99999), st.integers(1, 999)),
    picked=st.lists(st.integers(0, 99)).map(tuple),
    repeats=st.integers(1, 99),
    batch_size=st.integers(1, 99),
    controls=st.dictionaries(words, st.lists(st.builds(Control, path=paths, bucket=sizes)).map(tuple), max_size=2),
    mask=st.none() | paths,
    weight=numbers,
    split=st.sampled_from(["train", "validation"]),
)
outputs = st.builds(
    Output,
    stage=words,
    fingerprint=words,
    files=st.lists(
        st.builds(
            CachedFile,
            name=names.map(lambda name: f"{name}.safetensors"),
            bytes=st.integers(0, 2**40),
            sha256=words,
            key=words,
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
)


@given(item=items, prints=st.dictionaries(words, st.lists(words, min_size=1).map(tuple)))
def test_an_item_survives_its_line(item: Item, prints: dict[str, tuple[str, ...]]) -> None:
    cached = CachedItem(item=item, outputs=prints)

    assert item_of(json.loads(json.dumps(item_line(cached)))) == cached


@given(output=outputs)
def test_an_output_survives_its_line(output: Output) -> None:
    line = json.loads(json.dumps(output_line(output)))

    assert output_of(line) == output
    assert is_output_line(line)


@given(path=words, message=words, hint=words)
def test_an_issue_that_was_written_once_survives_its_line(path: str, message: str, hint: str) -> None:
    issue = issue_of(issue_line(Issue(path, message, hint)))

    assert issue_of(issue_line(issue)) == issue


def test_an_issue_keeps_its_words_but_no_absolute_path() -> None:
    issue = Issue("/home/me/a.png", "too small", "/home/me/masks/a.png: has a side below 16 pixels")

    assert issue_line(issue) == ["a.png", "too small", "masks/a.png: has a side below 16 pixels"]


def test_what_equals_its_default_is_left_out() -> None:
    item = Item(name="a", media="a", path=Path("a.png"), kind="image", captions=("a",), size=(64, 64), bucket=(64, 64))

    line = item_line(CachedItem(item=item, outputs={"latents": ("f",)}))

    assert set(line) == {"name", "media", "path", "kind", "captions", "size", "bucket", "outputs"}


@pytest.mark.parametrize(
    "line",
    [
        None,
        [],
        {},
        {"stage": "a", "fingerprint": "f", "files": []},
        {"stage": "a", "fingerprint": "f", "files": [["a", 1, "b"]]},
        {"stage": "a", "fingerprint": "f", "files": [["a", "1", "b", "c"]]},
        {"stage": 3, "fingerprint": "f", "files": [["a", 1, "b", "c"]]},
        {"fingerprint": "f", "files": [["a", 1, "b", "c"]]},
    ],
)
def test_a_damaged_line_is_not_taken_for_an_output(line: object) -> None:
    assert not is_output_line(line)


def test_of_an_absolute_path_only_the_name_is_shared(tmp_path: Path) -> None:
    assert shareable(tmp_path / "a.png") == "a.png"
    assert shareable(Path("clips") / "a.png") == "clips/a.png"
