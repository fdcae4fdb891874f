from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.data.sources.matching import Matches, Named, match_controls, match_masks

stems = st.from_regex(r"(img|im|a)(_(1|10|b|)){0,3}", fullmatch=True)
pictures = st.lists(stems, unique=True, max_size=8).map(lambda found: [f"{stem}.jpg" for stem in found])
controls = st.lists(stems, unique=True, max_size=12).map(lambda found: [f"{stem}.png" for stem in found])


def named(names: Sequence[str], *, folders: Sequence[str] = ()) -> list[Named]:
    files = [found for name in names if (found := Named.file(Path(name))) is not None]
    return [*files, *(Named.frames(Path(folder)) for folder in folders)]


def matched(matches: Matches) -> dict[str, list[str]]:
    return {str(item): [str(file) for file in files] for item, files in matches.files.items()}


@given(items=pictures, files=controls)
def test_no_control_is_used_twice_and_none_is_lost(items: list[str], files: list[str]) -> None:
    found = match_controls(named(items), named(files))

    used = [str(path) for paths in found.files.values() for path in paths]
    told = [*used, *map(str, found.unused), *(issue.path for issue in found.issues)]
    assert sorted(told) == sorted(files)


@given(items=pictures, files=controls)
def test_every_control_goes_to_the_longest_name_that_it_is_or_that_it_numbers(
    items: list[str], files: list[str]
) -> None:
    found = matched(match_controls(named(items), named(files)))

    for file in files:
        stem = Path(file).stem
        fits = [i for i in items if stem == (own := Path(i).stem) or _is_number(stem.removeprefix(f"{own}_"), stem)]
        owners = [item for item, own in found.items() if file in own]
        assert owners == ([max(fits, key=len)] if fits else [])


@given(items=pictures, files=controls)
def test_a_control_of_the_very_name_comes_first(items: list[str], files: list[str]) -> None:
    found = matched(match_controls(named(items), named(files)))

    for item in items:
        own = item.replace(".jpg", ".png")
        if own in files:
            assert found[item][0] == own


@given(items=pictures, files=controls, more=st.lists(st.from_regex(r"z[a-z_0-9]{0,4}", fullmatch=True), max_size=5))
def test_files_that_belong_to_nothing_change_nothing(items: list[str], files: list[str], more: list[str]) -> None:
    strangers = [f"{stem}.png" for stem in more]

    found = match_controls(named(items), named([*strangers, *files]))

    alone = match_controls(named(items), named(files))
    assert (found.files, found.issues) == (alone.files, alone.issues)


def test_numbers_count_as_numbers_and_files_of_one_number_stay_as_they_came() -> None:
    found = match_controls(named(["a.jpg"]), named(["a_10.png", "a_0002.webp", "a_2.png", "a.png"]))

    assert matched(found) == {"a.jpg": ["a.png", "a_0002.webp", "a_2.png", "a_10.png"]}


def test_a_number_may_have_any_digits_and_any_length() -> None:
    found = match_controls(named(["a.jpg"]), named(["a_20240601123456.png", "a_\u0663.png", "a_1.png"]))

    assert matched(found) == {"a.jpg": ["a_1.png", "a_\u0663.png", "a_20240601123456.png"]}


@pytest.mark.parametrize("name", ["a_mask.png", "a_.png", "a_0_1.png", "a.depth.png", "a_².png"])
def test_a_file_called_like_an_item_and_no_number_is_named(name: str) -> None:
    found = match_controls(named(["a.jpg"]), named([name]))

    (issue,) = found.issues
    assert issue.path == name
    assert "is not taken for a.jpg" in issue.message
    assert "a_0.png" in issue.hint


def test_a_name_is_no_pattern() -> None:
    found = match_controls(named(["p[1].jpg", "*.jpg", "ü b.jpg"]), named(["p[1]_0.png", "*.png", "ü b.png", "p1.png"]))

    assert matched(found) == {"p[1].jpg": ["p[1]_0.png"], "*.jpg": ["*.png"], "ü b.jpg": ["ü b.png"]}
    assert [path.name for path in found.unused] == ["p1.png"]


def test_the_two_ways_to_write_an_accent_are_one_name() -> None:
    found = match_controls(named(["caf\u00e9.jpg"]), named(["cafe\u0301_0.png"]))

    assert matched(found) == {"caf\u00e9.jpg": ["cafe\u0301_0.png"]}


def test_pictures_of_one_stem_cannot_share_a_control_and_the_issue_says_why() -> None:
    found = match_controls(named(["a.jpg", "a.png", "b.png"]), named(["a.png", "b.png"]))

    assert matched(found) == {"b.png": ["b.png"]}
    assert {path.name for path in found.undecided} == {"a.jpg", "a.png"}
    assert [str(issue) for issue in found.issues] == [
        "a.jpg: shares its stem with a.png: whose is a.png? (hint: give each item a stem of its own)",
        "a.png: shares its stem with a.jpg: whose is a.png? (hint: give each item a stem of its own)",
    ]


def test_pictures_of_one_stem_are_no_trouble_without_controls() -> None:
    assert match_controls(named(["a.jpg", "a.png"]), named(["b.png"])).undecided == frozenset()


def test_a_picture_and_a_clip_of_one_stem_take_what_is_of_their_kind() -> None:
    found = match_controls(named(["a.jpg", "a.mp4"]), named(["a.png", "a.webm"]))

    assert matched(found) == {"a.jpg": ["a.png"], "a.mp4": ["a.webm"]}


@pytest.mark.parametrize(
    ("files", "folders", "chosen"),
    [
        (["dog.webm", "dog.mov", "dog.mp4"], ["dog"], "dog.mov"),
        (["dog.webm", "dog.mp4"], ["dog"], "dog"),
        (["dog.mkv", "dog.webm"], [], "dog.webm"),
        (["dog.MPEG", "dog.png"], [], "dog.MPEG"),
    ],
)
def test_a_clip_takes_one_of_its_name_in_the_references_order(
    files: list[str], folders: list[str], chosen: str
) -> None:
    found = match_controls(named(["dog.mov"]), named(files, folders=folders))

    assert matched(found) == {"dog.mov": [chosen]}
    assert sorted(map(str, found.unused)) == sorted({*files, *folders} - {chosen})


def test_clips_of_one_stem_are_told_apart_by_their_file_names() -> None:
    found = match_controls(named(["dog.mp4", "dog.mov"]), named(["dog.mov", "dog.mp4"]))

    assert matched(found) == {"dog.mp4": ["dog.mp4"], "dog.mov": ["dog.mov"]}
    assert match_controls(named(["dog.mp4", "dog.mov"]), named(["dog.avi"])).files == {}


def test_a_folder_of_frames_is_matched_by_its_whole_name() -> None:
    found = match_controls(named([], folders=["walk v1.5"]), named(["walk v1.5.mp4"], folders=["walk v1"]))

    assert matched(found) == {"walk v1.5": ["walk v1.5.mp4"]}


def test_a_mask_has_the_stem_of_its_item() -> None:
    found = match_masks(named(["a.jpg", "b.jpg", "ab.jpg"]), named(["a.png", "ab.webp", "a_0.png"]))

    assert matched(found) == {"a.jpg": ["a.png"], "ab.jpg": ["ab.webp"]}
    assert [path.name for path in found.unused] == ["a_0.png"]


@pytest.mark.parametrize(
    ("items", "masks", "expected"),
    [
        (["a.mp4"], ["a.png"], {"a.mp4": ["a.png"]}),
        (["a.mp4"], ["a.png", "a.mkv"], {"a.mp4": ["a.mkv"]}),
        (["a.mp4", "a.jpg"], ["a.png"], {"a.jpg": ["a.png"]}),
        (["a.jpg"], ["a.mp4"], {}),
    ],
)
def test_a_clip_takes_a_still_mask_only_if_there_is_no_moving_one_and_no_picture_of_its_name(
    items: list[str], masks: list[str], expected: dict[str, list[str]]
) -> None:
    assert matched(match_masks(named(items), named(masks))) == expected


@pytest.mark.parametrize(("items", "masks"), [(["a.jpg"], ["a.png", "a.webp"]), (["a.jpg", "a.png"], ["a.webp"])])
def test_a_mask_that_is_not_clear_keeps_its_items_out(items: list[str], masks: list[str]) -> None:
    found = match_masks(named(items), named(masks))

    assert found.files == {}
    assert sorted(map(str, found.undecided)) == sorted(issue.path for issue in found.issues) == items


def _is_number(rest: str, stem: str) -> bool:
    return rest != stem and rest.isdecimal()
