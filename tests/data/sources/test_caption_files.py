from __future__ import annotations

from pathlib import Path

import pytest

from musubi.core.errors import DataError
from musubi.data.sources.caption_files import caption_path, find_captions, read_captions
from musubi.data.sources.matching import Named
from musubi.data.sources.tree import Tree

ROOT = Path("root")
PRECOMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def _found(files: list[str], *, folders: tuple[str, ...] = (), extension: str = ".txt") -> dict[str, str]:
    """Return the captions of the media among some files of one folder, and of folders of frames beside them."""
    paths = [ROOT / name for name in files]
    media = [named for path in paths if (named := Named.file(path)) is not None]
    media += [Named.frames(ROOT / name) for name in folders]
    found = find_captions(media, Tree(root=ROOT, folders={ROOT: tuple(paths)}), extension)
    return {item.name: path.name for item, path in found.items()}


def test_a_caption_has_the_stem_and_the_extension() -> None:
    found = _found(["a.png", "a.txt", "a.b.png", "a.b.txt", "c.png", "c.txt.bak"], extension=".txt")

    assert found == {"a.png": "a.txt", "a.b.png": "a.b.txt"}


def test_an_extension_may_have_several_dots() -> None:
    assert _found(["a.png", "a.txt", "a.caption.txt"], extension=".caption.txt") == {"a.png": "a.caption.txt"}


def test_the_caption_of_a_folder_of_frames_has_its_whole_name() -> None:
    assert _found(["walk v1.5.txt", "walk v1.txt"], folders=("walk v1.5",)) == {"walk v1.5": "walk v1.5.txt"}


def test_a_picture_and_a_clip_of_one_stem_share_a_caption() -> None:
    assert _found(["a.png", "a.mp4", "a.txt"]) == {"a.png": "a.txt", "a.mp4": "a.txt"}


def test_an_accent_may_be_written_in_two_ways_and_the_extension_in_capitals() -> None:
    assert _found([f"{DECOMPOSED}.png", f"{PRECOMPOSED}.txt"]) == {f"{DECOMPOSED}.png": f"{PRECOMPOSED}.txt"}
    assert _found(["a.PNG", "a.TXT"]) == {"a.PNG": "a.TXT"}
    assert _found(["a.PNG", "A.txt"]) == {}


def test_of_two_items_that_look_alike_each_keeps_its_own_caption() -> None:
    both = [f"{DECOMPOSED}.png", f"{PRECOMPOSED}.png"]

    assert _found([*both, f"{PRECOMPOSED}.txt"]) == {f"{PRECOMPOSED}.png": f"{PRECOMPOSED}.txt"}
    assert _found([*both, f"{PRECOMPOSED}.TXT"]) == {}


def test_where_a_caption_is_missed_is_beside_the_file_as_it_is_written() -> None:
    named = Named.file(ROOT / f"{DECOMPOSED}.png")

    assert named is not None
    assert caption_path(named, ".txt") == ROOT / f"{DECOMPOSED}.txt"


def test_a_file_is_one_caption_stripped_at_both_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeff \r\n a cat,\r\n on a mat\n\n".encode())

    assert read_captions(tmp_path / "a.txt", by_line=False) == ("a cat,\n on a mat",)


def test_every_line_that_is_not_blank_may_be_a_caption_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\na cat\n \n  größer 画像 \na cat\n", encoding="utf-8-sig")

    assert read_captions(tmp_path / "a.txt", by_line=True) == ("a cat", "größer 画像", "a cat")


@pytest.mark.parametrize("by_line", [False, True])
def test_an_empty_file_is_an_empty_caption(tmp_path: Path, *, by_line: bool) -> None:
    (tmp_path / "a.txt").write_text(" \n\n", encoding="utf-8")

    assert read_captions(tmp_path / "a.txt", by_line=by_line) == ("",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"caf\xe9", "caption is not UTF-8"),
        ("a cat".encode("utf-16"), "caption is not UTF-8"),
        ("a cat".encode("utf-16-le"), "caption is not text"),
        (b"a" * (2 << 20), "caption is longer than a million characters"),
    ],
)
def test_what_is_no_caption_is_an_error_that_names_the_file(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "a.txt").write_bytes(content)

    with pytest.raises(DataError, match=f"a.txt: {problem}"):
        read_captions(tmp_path / "a.txt", by_line=False)


def test_a_caption_that_cannot_be_opened_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.txt: caption cannot be read"):
        read_captions(tmp_path / "nowhere.txt", by_line=False)
