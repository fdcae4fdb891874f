from __future__ import annotations

from pathlib import Path

import pytest

from musubi.core.errors import Issue
from musubi.data.report.places import Places
from tests.data.scans import item, scan


def test_what_all_absolute_paths_have_in_common_is_left_out() -> None:
    found = scan(
        item("a.png", folder="/home/anna/clips"),
        item("b.png", folder="/home/anna/clips/sub"),
        dropped=(Issue("/home/anna/clips/sub/c.png", "caption is missing"),),
    )

    places = Places.of(found)

    assert places.folder == "/home/anna/clips/"
    assert [places.name(entry.path) for entry in found.items] == ["a.png", "sub/b.png"]
    assert places.name("/home/anna/clips/sub/c.png") == "sub/c.png"


def test_masks_and_controls_count_as_files_of_the_scan() -> None:
    found = scan(item("a.png", folder="/data/set/pictures", mask=Path("/data/set/masks/a.png")))

    assert Places.of(found).folder == "/data/set/"


@pytest.mark.parametrize("path", ["/mnt/other/place/x.png", "D:/other/place/x.png"])
def test_an_absolute_path_from_elsewhere_keeps_its_last_two_parts(path: str) -> None:
    assert Places("/home/anna/clips/").name(path) == "place/x.png"


def test_files_on_different_disks_have_no_folder_in_common() -> None:
    found = scan(item("a.png", folder="/home/anna"), item("b.png", folder="/mnt/disk"))

    places = Places.of(found)

    assert places.folder == ""
    assert [places.name(entry.path) for entry in found.items] == ["anna/a.png", "disk/b.png"]


def test_relative_paths_stay_as_the_user_wrote_them() -> None:
    found = scan(item("a.png", folder="clips"), dropped=(Issue("rows.jsonl:12", "is not JSON"),))

    places = Places.of(found)

    assert (places.folder, places.name(found.items[0].path)) == ("", "clips/a.png")
    assert places.name("rows.jsonl:12") == "rows.jsonl:12"


def test_absolute_paths_within_a_text_are_shortened_and_all_else_is_kept() -> None:
    places = Places("/home/anna/my clips/")
    text = "looks like /home/anna/my clips/sub/a b.png, (see /opt/tools/mask/b.png) and/or https://x.org/y/z"

    assert places.within(text) == "looks like sub/a b.png, (see mask/b.png) and/or https://x.org/y/z"


def test_an_issue_is_shortened_as_a_whole() -> None:
    issue = Issue("/d/e/a.png", "is like /d/e/b.png", "remove /d/e/b.png")

    assert Places("/d/e/").issue(issue) == Issue("a.png", "is like b.png", "remove b.png")


def test_a_name_cannot_break_the_line_it_stands_in() -> None:
    assert Places().name("a\nb.png") == r"a\nb.png"
