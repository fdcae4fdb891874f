from __future__ import annotations

import sys
from pathlib import Path

import pytest

from musubi.core.errors import ConfigError
from musubi.data.dataset import Dataset
from musubi.data.report import Report
from tests.data.files import picture


@pytest.fixture
def report(tmp_path: Path) -> Report:
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png", caption=f"<b>{name}</b>")
    for name in ("x", "y"):
        picture(tmp_path / f"{name}.png", caption=None)
    (tmp_path / "z.gif").write_bytes(b"GIF89a")
    return Dataset.from_folder(tmp_path, resolution=64).scan().report()


def test_the_headline_counts_and_names_what_was_dropped_by_reason(report: Report) -> None:
    assert (
        report.headline == "3 items, 1 bucket, 3 dropped: .gif is not read (z.gif); caption is missing (x.png, y.png)"
    )


def test_the_text_lists_buckets_and_says_how_to_mend_each_file(report: Report) -> None:
    assert "  64x64  3" in str(report)
    assert "hint: write x.txt beside it" in str(report)


def test_the_card_is_escaped(report: Report) -> None:
    html = report._repr_html_()

    assert "caption is missing" in html
    assert "<b>a</b>" not in html


def test_the_figures_show_every_bucket_and_every_item(report: Report) -> None:
    histogram, sheet = report.plot(), report.contact_sheet(columns=2)

    assert len(histogram.axes[0].patches) == 1
    assert [axes.get_title() for axes in sheet.axes] == ["<b>a</b>", "<b>b</b>", "<b>c</b>"]


def test_without_matplotlib_the_figures_say_what_to_install(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(ConfigError, match=r'pip install "musubi-trainer\[plots\]"'):
        report.plot()
