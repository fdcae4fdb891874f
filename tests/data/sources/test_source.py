from __future__ import annotations

from pathlib import Path

import pytest

from musubi.data.sources.folder import Folder
from musubi.data.sources.metadata import MetadataFolder
from musubi.data.sources.rows import Jsonl
from musubi.data.sources.source import Listing, Source, read_all, unread
from tests.data.files import picture


def test_sources_are_read_one_after_the_other(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        picture(tmp_path / name / f"{name}.png")
        (tmp_path / name / "c.gif").touch()

    listing = read_all([Folder(tmp_path / "b"), Folder(tmp_path / "a")])

    assert [record.path.name for record in listing.records] == ["b.png", "a.png"]
    assert [issue.path for issue in listing.issues] == [f"{tmp_path.as_posix()}/{name}/c.gif" for name in "ba"]
    assert read_all([]) == Listing()


@pytest.mark.parametrize(
    "source",
    [
        Folder("a b/ü", recursive=True, control="c", masks="m", caption_lines=True, frame_folders=True),
        Folder("plain"),
        Jsonl("rows.jsonl"),
        MetadataFolder("m", caption_column="prompt", recursive=True),
    ],
    ids=lambda source: type(source).__name__,
)
def test_sources_survive_a_round_trip_by_their_kind(source: Source) -> None:
    assert Source.from_toml(source.to_toml()) == source


@pytest.mark.parametrize(("name", "message"), [("a.GIF", ".gif is not read"), ("a", "a file without extension is")])
def test_an_issue_of_a_format_names_the_extension(name: str, message: str) -> None:
    issue = unread(Path(name))

    assert issue.path == name
    assert issue.message.startswith(message)
