from __future__ import annotations

from musubi.core.errors import Issue
from musubi.data.report.text import sections
from musubi.data.scan import Scan
from tests.data.scans import dropped, item, scan


def _section(found: Scan, beginning: str) -> list[str]:
    """Return the lines of the section whose first line begins like this."""
    return next(text.splitlines() for text in sections(found) if text.lstrip().startswith(beginning))


def test_the_table_has_a_row_for_each_bucket_and_leaves_out_empty_columns() -> None:
    found = scan(item("a.png"), item("b.png"), item("c.mp4", frames=25, size=(320, 240)))

    assert _section(found, "bucket") == [
        "    bucket  items  share  aspect  batches        enlarged",
        "   640x480      2    67%    1.33        2",
        "640x480x25      1    33%    1.33        1  1, up to 2.00x",
    ]


def test_held_out_items_have_a_column_where_there_are_any() -> None:
    found = scan(item("a.png"), item("b.png", split="validation"))

    assert _section(found, "bucket")[1].split() == ["640x480", "2", "100%", "1", "1.33", "1"]


def test_many_buckets_are_added_up() -> None:
    found = scan(*(item(f"{i}_{n}.png", bucket=(16 * i, 480)) for i in range(1, 61) for n in range(i)))

    lines = _section(found, "bucket")

    assert len(lines) == 22
    assert lines[1].split()[:2] == ["960x480", "60"]
    assert lines[-1] == "and 40 more buckets with 820 items"


def test_an_advice_that_all_files_share_is_given_once() -> None:
    found = scan(dropped=dropped(312, hint="add a conditioning file to it, or drop with_control()"))

    assert _section(found, "dropped") == [
        "dropped (312):",
        "  control missing (312): add a conditioning file to it, or drop with_control()",
        "    pictures/0000.png, pictures/0001.png, pictures/0002.png, pictures/0003.png,",
        "    pictures/0004.png and 307 more",
    ]


def test_different_advice_stands_beside_each_file() -> None:
    issues = tuple(Issue(f"{frames}.mp4", "too short", f"has {frames} frames, wanted are 25") for frames in range(8))

    assert _section(scan(dropped=issues), "dropped") == [
        "dropped (8):",
        "  too short (8):",
        *(f"    {frames}.mp4: has {frames} frames, wanted are 25" for frames in range(5)),
        "    and 3 more",
    ]


def test_an_issue_without_advice_is_told_without_one() -> None:
    assert _section(scan(notes=(Issue("a.png", "odd"),)), "noted") == ["noted (1):", "  odd (1)", "    a.png"]


def test_many_messages_are_added_up() -> None:
    issues = tuple(issue for reason in range(40) for issue in dropped(2, f"reason {reason}"))

    assert _section(scan(dropped=issues), "dropped")[-1] == "  and 30 other messages (60)"


def test_ten_thousand_items_fit_a_few_screens_and_a_terminal() -> None:
    items = [item(f"{i}.png", bucket=(16 * (i % 90 + 1), 480), folder=f"/data/{'deep/' * 9}x") for i in range(10_000)]
    issues = tuple(issue for reason in range(40) for issue in dropped(250, f"reason {reason}", hint="words " * 30))

    lines = "\n\n".join(sections(scan(*items, dropped=issues, notes=issues))).splitlines()

    assert len(lines) < 200
    assert max(map(len, lines)) <= 80


def test_nothing_found_has_nothing_to_say() -> None:
    assert list(sections(scan())) == []
