from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from musubi.core.errors import ConfigError, Issue
from musubi.data.dataset import Dataset
from musubi.data.report.report import Report
from tests.data.files import picture
from tests.data.scans import dropped, item, scan


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Return the report of a folder with three good pictures and three bad files."""
    for seed, name in enumerate(("a", "b", "c")):
        picture(tmp_path / f"{name}.png", caption=f"<b>{name}</b>", seed=seed)
    for name in ("x", "y"):
        picture(tmp_path / f"{name}.png", caption=None)
    (tmp_path / "z.gif").write_bytes(b"GIF89a")
    return Dataset.from_folder(tmp_path, resolution=64).scan().report()


def test_the_headline_counts_and_names_what_was_dropped_by_reason(report: Report) -> None:
    assert (
        report.headline == "3 items, 1 bucket, 3 dropped: caption is missing (x.png, y.png); .gif is not read (z.gif)"
    )


def test_the_headline_is_short_when_nothing_was_dropped() -> None:
    found = scan(*(item(f"{i}.png") for i in range(1_234)))

    assert found.report().headline == "1,234 items, 1 bucket"


def test_the_headline_stays_one_line_however_much_was_dropped() -> None:
    many = tuple(issue for reason in range(50) for issue in dropped(50 + reason, f"reason {reason}"))

    headline = scan(item(), dropped=many).report().headline

    assert headline.startswith(
        "1 item, 1 bucket, 3,725 dropped: reason 49 (0000.png, 0001.png, 0002.png and 96 more); "
    )
    assert headline.endswith("; and 47 other reasons")
    assert len(headline) < 250


def test_the_text_says_where_the_files_are_and_how_to_mend_each(report: Report, tmp_path: Path) -> None:
    text = str(report)

    assert text.startswith(report.headline + "\n\n")
    assert f"folder    {tmp_path.as_posix()}/" in text
    assert "64x64      3   100%    1.00        3  3, up to 1.33x" in text
    assert "    x.png: write x.txt beside it" in text


def test_reasons_and_notes_have_all_files(report: Report) -> None:
    noted = scan(notes=(Issue("a.png", "retimed", "30 fps"), Issue("b.png", "retimed", "25 fps"))).report()

    assert [(reason, len(files)) for reason, files in report.reasons.items()] == [
        ("caption is missing", 2),
        (".gif is not read", 1),
    ]
    assert noted.notes == {"retimed": ("a.png", "b.png")}


def test_the_card_tells_the_figures_and_is_escaped() -> None:
    found = scan(
        item(caption="<script>"),
        dropped=(Issue("<i>.png", "<b>bad</b>"),),
        notes=(Issue("n.png", "near-duplicate"),),
    )

    html = found.report()._repr_html_()

    assert "1 item; in an epoch 1 sample, 1 batch" in html
    assert "640x480: 1" in html
    assert "dropped: &lt;b&gt;bad&lt;/b&gt;" in html
    assert "noted: near-duplicate" in html
    assert "<b>bad" not in html
    assert "<i>" not in html


def test_the_card_of_many_items_stays_small() -> None:
    many = tuple(issue for reason in range(50) for issue in dropped(200, f"reason {reason}"))
    found = scan(*(item(f"{i}.png", bucket=(16 * (i % 90 + 1), 480)) for i in range(2_000)), dropped=many)

    assert len(found.report()._repr_html_()) < 10_000


def test_figures_come_from_the_scan(report: Report) -> None:
    histogram, sheet = report.plot(), report.contact_sheet(columns=2, rows=1)

    assert histogram.axes[0].get_title() == "3 items in 1 bucket"
    assert len(sheet.axes) == 2


def test_the_page_is_saved_where_it_is_wanted(report: Report, tmp_path: Path) -> None:
    path = report.save(tmp_path / "out" / "report.html", pictures=2)

    assert path == tmp_path / "out" / "report.html"
    assert path.read_text(encoding="utf-8").count("data:image/jpeg;base64,") == 2


@pytest.mark.parametrize("draw", [Report.plot, Report.contact_sheet], ids=["histogram", "contact sheet"])
def test_without_matplotlib_the_figures_say_what_to_install(
    report: Report, monkeypatch: pytest.MonkeyPatch, draw: Callable[[Report], object]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(ConfigError, match=r'pip install "musubi-trainer\[plots\]"'):
        draw(report)


def test_words_card_and_page_need_no_matplotlib(
    report: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    said, shown, saved = str(report), report._repr_html_(), report.save(tmp_path / "report.html")

    assert said
    assert shown
    assert saved.stat().st_size > 2_000
