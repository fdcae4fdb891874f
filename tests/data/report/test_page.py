from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from musubi.core.errors import ConfigError, Issue
from musubi.data.report.page import save_page
from musubi.data.scan import Scan
from tests.data.files import clip, picture
from tests.data.scans import dropped, item, scan

EMPTY = {"meta", "img", "br"}


class _Page(HTMLParser):
    """Reads a page strictly: every element is closed by its own end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def values(self, name: str) -> list[str]:
        return [value or "" for key, value in self.attributes if key == name]


def _page(found: Scan, folder: Path, *, pictures: int = 48) -> _Page:
    return _Page(save_page("headline", found, folder / "report.html", pictures=pictures))


def test_a_page_tells_the_figures_the_buckets_and_every_bad_file(tmp_path: Path) -> None:
    found = scan(
        item("a.png", repeats=3),
        item("b.png", split="validation"),
        item("c.mp4", frames=25, size=(320, 240)),
        dropped=dropped(100, hint="add a conditioning file"),
        notes=(Issue("c.mp4", "retimed", "plays at 30 fps"), Issue("d.mp4", "retimed", "plays at 24 fps")),
    )

    text = _page(found, tmp_path).text

    assert "3 items 2 buckets 4 samples an epoch 4 batches an epoch 1 held out 100 dropped 2 noted" in text
    assert "640x480 2 67% 1.33 3 " in text
    assert "640x480x25 1 33% 1.33 1 1, up to 2.00x" in text
    assert "control missing 100 add a conditioning file file pictures/0000.png pictures/0001.png" in text
    assert "pictures/0099.png" in text
    assert "retimed 2 file c.mp4 plays at 30 fps d.mp4 plays at 24 fps" in text
    assert "most enlarged pictures/c.mp4 2.00 times" in text


def test_bars_are_as_long_as_their_share_of_the_largest_bucket(tmp_path: Path) -> None:
    found = scan(
        *(item(f"{i}.png", split="validation" if i == 0 else "train") for i in range(4)),
        item("d.png", bucket=(64, 64)),
    )

    assert _page(found, tmp_path).values("style") == ["width:75.00%", "width:25.00%", "width:25.00%"]


def test_nothing_that_a_file_says_is_taken_for_html(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script><img src=x onerror=y>&amp;'
    found = scan(
        item(f"{evil}.png".replace("/", ""), caption=evil),
        dropped=(Issue(evil, evil, evil),),
        notes=(Issue(evil, evil, evil), Issue(evil, evil, "other")),
    )

    page = _Page(save_page(evil, found, tmp_path / "report.html", pictures=5))

    assert "script" not in page.tags
    assert "onerror" not in dict(page.attributes)
    assert page.text.count(evil) >= 6


def test_a_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")

    page = _page(scan(item("a.png", folder=tmp_path, size=(64, 48))), tmp_path)

    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.values("src"))
    assert all(target.startswith("#") for target in page.values("href"))
    assert "url(" not in page.source
    assert "default-src 'none'" in page.source


@pytest.mark.parametrize("found", [scan(item(), dropped=dropped(1), notes=dropped(1)), scan(item()), scan()])
def test_links_lead_to_sections_that_are_there(tmp_path: Path, found: Scan) -> None:
    page = _page(found, tmp_path)

    assert len(page.values("href")) == bool(found.items) * 4 + bool(found.dropped) + bool(found.notes)
    assert set(page.values("href")) <= {f"#{name}" for name in page.values("id")}


def test_a_page_has_no_absolute_path(tmp_path: Path) -> None:
    deep = tmp_path / "some" / "set"
    deep.mkdir(parents=True)
    picture(deep / "a.png")
    bad = Issue((deep / "b.png").as_posix(), "is like", f"looks like {(deep / 'a.png').as_posix()}; keep one")
    found = scan(item("a.png", folder=deep, size=(64, 48)), dropped=(bad,), notes=(bad,))

    path = save_page(f"1 dropped: like {deep.as_posix()}/a.png", found, tmp_path / "report.html", pictures=5)

    assert tmp_path.as_posix() not in path.read_text(encoding="utf-8")
    assert "looks like a.png; keep one" in _Page(path).text
    assert "What will be trained: set" in _Page(path).text


def test_pictures_are_small_jpegs_bounded_in_number(tmp_path: Path) -> None:
    for number in range(5):
        picture(tmp_path / f"{number}.png", size=(640, 320))
    items = [item(f"{number}.png", folder=tmp_path, size=(640, 320)) for number in range(5)]

    page = _page(scan(*items), tmp_path, pictures=3)

    assert len(page.values("src")) == 3
    data = base64.b64decode(page.values("src")[0].partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", (240, 120))
    assert "3 of 5 items, from all buckets." in page.text


def test_a_clip_is_told_by_its_length(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", frames=9)

    page = _page(scan(item("a.mp4", folder=tmp_path, frames=5, size=(64, 48), caption="")), tmp_path)

    assert "5 frames 640x480x5, enlarged 10.00x a.mp4 (no caption)" in page.text
    assert len(page.values("src")) == 1


def test_an_unreadable_picture_keeps_its_place_and_is_marked(tmp_path: Path) -> None:
    page = _page(scan(item("missing.png", folder=tmp_path, caption="x" * 500)), tmp_path)

    assert "cannot be read 640x480 missing.png xxx" in page.text
    assert len(page.text) < 1_000


def test_nothing_found_is_a_page_that_says_so(tmp_path: Path) -> None:
    page = _page(scan(dropped=dropped(2)), tmp_path)

    assert "0 items 0 buckets" in page.text
    assert "control missing 2" in page.text
    assert "Pictures" not in page.text


def test_names_that_are_no_text_do_not_keep_a_page_from_being_written(tmp_path: Path) -> None:
    page = _page(scan(item("a\udcff.png", caption="b\udcff"), dropped=(Issue("c\udcff.png", "m\udcff"),)), tmp_path)

    assert r"a\udcff.png b\udcff" in page.text
    assert r"m\udcff 1" in page.text


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report\.pdf: must end in \.html"):
        save_page("headline", scan(), tmp_path / "report.pdf", pictures=1)
    assert not list(tmp_path.iterdir())
