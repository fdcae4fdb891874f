"""A scan as one HTML file: needs no network, no script and no other file, and is safe with whatever captions hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from musubi.core import atomic
from musubi.core.errors import ConfigError, Issue, printable, shown
from musubi.data.report.facts import NO_CAPTION, facts, fate
from musubi.data.report.findings import Finding, gathered
from musubi.data.report.places import Places
from musubi.data.report.style import STYLE
from musubi.data.report.summary import BucketFigures, Summary
from musubi.data.report.thumbnails import spread, thumbnail
from musubi.data.report.wording import beginning, counted, percent
from musubi.data.sample import Item

if TYPE_CHECKING:
    from musubi.data.scan import Scan

_SIDE, _QUALITY = 240, 80
"""The longer side of a small picture in pixels, and its JPEG quality: about 10 KB each."""

_WORST = 10
_CAPTION = 140
"""How many files the tables of extremes name, and how many characters of a caption are shown."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def save_page(headline: str, scan: Scan, path: Path, *, pictures: int) -> Path:
    """Write the page, with at most so many pictures, and return its path; an unreadable picture leaves a marked place.

    Raises:
        ConfigError: The name does not end in ``.html``, or the file cannot be written.
    """
    if path.suffix.lower() not in {".html", ".htm"}:
        raise ConfigError("cannot save report", [Issue(shown(path), "must end in .html")])
    return atomic.write_bytes(path, "".join(_page(headline, scan, pictures)).encode(errors="replace"))


def _page(headline: str, scan: Scan, pictures: int) -> Iterator[str]:
    summary, places = Summary.of(scan), Places.of(scan)
    chosen = spread(scan.items, pictures)
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    yield f"<title>{escape(_title(places))}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    yield f"<h1>{escape(_title(places))}</h1>\n<p>{escape(places.within(headline))}</p>\n"
    yield _tiles(scan, summary)
    yield from _section("In figures", [_table(None, facts(summary, places))] if summary.buckets else [])
    yield from _section("Buckets", _buckets(summary))
    yield from _section("Pictures", _pictures(chosen, len(scan.items)))
    yield from _section("Extremes", _extremes(summary, places))
    yield from _section("Dropped", _findings(scan.dropped, places))
    yield from _section("Noted", _findings(scan.notes, places))
    yield "</body>\n</html>\n"


def _title(places: Places) -> str:
    name = places.folder.rstrip("/").rpartition("/")[2]
    return f"What will be trained: {name}" if name else "What will be trained"


def _tiles(scan: Scan, summary: Summary) -> str:
    """Return the figures that one looks for first."""
    tiles = [
        ("items", len(scan.items), "Pictures"),
        ("buckets", len(summary.buckets), "Buckets"),
        ("samples an epoch", summary.samples, "In figures"),
        ("batches an epoch", summary.batches, "In figures"),
        ("held out", summary.validation, "In figures"),
        ("dropped", len(scan.dropped), "Dropped"),
        ("noted", len(scan.notes), "Noted"),
    ]
    return f'<div class="tiles">{"".join(_tile(*tile) for tile in tiles)}</div>\n'


def _tile(name: str, number: int, section: str) -> str:
    link = f' href="#{_anchor(section)}"' if number else ""
    return f"<a{link}><b>{number:,}</b><span>{name}</span></a>"


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _section(title: str, parts: Iterable[str]) -> Iterator[str]:
    """Yield a section, or nothing where it would be empty."""
    body = "".join(parts)
    if body:
        yield f'<section id="{_anchor(title)}">\n<h2>{escape(title)}</h2>\n{body}</section>\n'


def _table(header: Sequence[str] | None, rows: Iterable[Sequence[str]]) -> str:
    """Return a table of escaped texts; without a header the first column names the second."""
    head = "" if header is None else f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in header)}</tr>\n"
    first = "th" if header is None else "td"
    body = (
        f"<tr><{first}>{escape(row[0])}</{first}>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>\n"
        for row in rows
    )
    return f'<div class="scroll"><table>\n{head}{"".join(body)}</table></div>\n'


def _buckets(summary: Summary) -> Iterator[str]:
    """Yield a table of all buckets with a bar for each: what is trained on, then what is held out."""
    if not summary.buckets:
        return
    held_out = ' <span class="key held"></span> validation' if summary.validation else ""
    yield f'<p><span class="key"></span> training{held_out}</p>\n<div class="scroll"><table class="numbers">\n'
    names = ("bucket", "", "items", "share", "aspect", "batches", "enlarged")
    yield f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>\n"
    most, total = summary.buckets[0].items, summary.train + summary.validation
    for bucket in summary.buckets:
        cells = (
            f"{bucket.items:,}",
            percent(bucket.items / total),
            f"{bucket.aspect:.2f}",
            f"{bucket.batches:,}",
            f"{bucket.enlarged:,}, up to {bucket.enlargement:.2f}x" if bucket.enlarged else "",
        )
        yield f"<tr><td>{escape(bucket.label)}</td><td>{_bar(bucket, most)}</td>"
        yield "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"
    yield "</table></div>\n"


def _bar(bucket: BucketFigures, most: int) -> str:
    parts = [("", bucket.train), (' class="held"', bucket.validation)]
    drawn = (f'<i{kind} style="width:{100 * number / most:.2f}%"></i>' for kind, number in parts if number)
    return f'<div class="bar" title="{bucket.train:,} + {bucket.validation:,}">{"".join(drawn)}</div>'


def _pictures(items: Sequence[Item], total: int) -> Iterator[str]:
    if not items:
        return
    of_all = "" if len(items) == total else f"{len(items):,} of {counted(total, 'item')}, from all buckets. "
    yield f"<p>{of_all}What the crop cuts away is faded, outside the red line; of clips the first frame is shown.</p>\n"
    yield '<div class="pictures">\n'
    yield from map(_figure, items)
    yield "</div>\n"


def _figure(item: Item) -> str:
    """Return a picture with its fate, its file's name and its caption's beginning."""
    caption = beginning(item.captions[0], _CAPTION) or NO_CAPTION
    name = printable(item.path.name)
    words = f"{_length(item)}<b>{escape(fate(item))}</b><br><em>{escape(name)}</em><br>{escape(caption)}"
    return f"<figure>{_picture(item)}<figcaption>{words}</figcaption></figure>\n"


def _picture(item: Item) -> str:
    """Return the small picture itself, within the page."""
    pixels = thumbnail(item, side=_SIDE)
    if pixels is None:
        return '<div class="missing">cannot be read</div>'
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    height, width = pixels.shape[:2]
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="" width="{width}" height="{height}" src="data:image/jpeg;base64,{data}">'


def _length(item: Item) -> str:
    return f'<span class="length">{counted(item.window.count, "frame")}</span> ' if item.kind == "video" else ""


def _extremes(summary: Summary, places: Places) -> Iterator[str]:
    """Yield the files that lose most to the crop, and those that are enlarged most."""
    cut = [(places.name(file.path), percent(file.value)) for file in summary.cut[:_WORST] if file.value > 0]
    enlarged = [(places.name(file.path), f"{file.value:.2f} times") for file in summary.enlarged[:_WORST]]
    tables = [(("most cut away", "of its area"), cut), (("most enlarged", ""), enlarged)]
    if cut or enlarged:
        yield f'<div class="beside">{"".join(_table(header, rows) for header, rows in tables if rows)}</div>\n'


def _findings(issues: Sequence[Issue], places: Places) -> Iterator[str]:
    """Yield every issue, so that the browser's own search finds any file."""
    for finding in gathered(places.issue(issue) for issue in issues):
        yield f"<h3>{escape(finding.message)} <span>{len(finding):,}</span></h3>\n"
        yield _finding(finding)


def _finding(finding: Finding) -> str:
    if not finding.hint:
        return _table(("file", ""), [(issue.path, issue.hint) for issue in finding.issues])
    return f"<p>{escape(finding.hint)}</p>\n" + _table(("file",), [(issue.path,) for issue in finding.issues])
