from __future__ import annotations

import os
from pathlib import Path

import pytest

from musubi.core.errors import DataError
from musubi.data.sources.tree import Tree, holds_pictures, walk
from tests.data.files import picture

needs_links = pytest.mark.skipif(os.name == "nt", reason="Windows lets few people make links")


def _made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _names(tree: Tree) -> dict[str, list[str]]:
    return {
        folder.relative_to(tree.root).as_posix(): [path.name for path in files]
        for folder, files in tree.folders.items()
    }


def test_a_walk_goes_as_deep_as_asked(tmp_path: Path) -> None:
    _made(tmp_path, "a.png", "s/b.png", "s/t/c.png")

    assert _names(walk(tmp_path)) == {".": ["a.png"]}
    assert _names(walk(tmp_path, depth=1)) == {".": ["a.png"], "s": ["b.png"]}
    assert _names(walk(tmp_path, depth=None)) == {".": ["a.png"], "s": ["b.png"], "s/t": ["c.png"]}


def test_hidden_files_and_the_systems_own_folders_are_passed_over(tmp_path: Path) -> None:
    _made(tmp_path, ".a.png", "._b.png", ".git/c.png", "@eaDir/thumb.jpg", "__MACOSX/d.png", "e.png")

    assert _names(walk(tmp_path, depth=None)) == {".": ["e.png"]}


def test_a_folder_is_left_out_however_it_is_written(tmp_path: Path) -> None:
    _made(tmp_path, "a.png", "control/b.png")

    tree = walk(tmp_path, depth=None, leave_out=[tmp_path / "x" / ".." / "control"])

    assert _names(tree) == {".": ["a.png"]}


@needs_links
def test_loops_of_links_end_and_no_file_is_listed_twice(tmp_path: Path) -> None:
    _made(tmp_path, "a/x.png", "b/y.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "other").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "b" / "other").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "self").symlink_to(tmp_path / "self")

    assert _names(walk(tmp_path, depth=None)) == {".": [], "a": ["x.png"], "b": ["y.png"]}


@needs_links
def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    _made(tmp_path, "here/a.png", "there/b.png")
    (tmp_path / "here" / "more").symlink_to(tmp_path / "there", target_is_directory=True)

    assert _names(walk(tmp_path / "here", depth=None)) == {".": ["a.png"], "more": ["b.png"]}


@needs_links
def test_media_that_are_no_files_are_named_and_never_opened(tmp_path: Path) -> None:
    _made(tmp_path, "a.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")

    tree = walk(tmp_path)

    assert _names(tree) == {".": ["a.png"]}
    assert [str(issue).rpartition("/")[2] for issue in tree.issues] == [
        "gone.png: is a link that leads to no file (hint: restore the file or remove the link)",
        "pipe.mp4: is not an ordinary file, or may not be looked at (hint: check it and its permissions)",
        "round.png: is a link that leads to no file (hint: restore the file or remove the link)",
    ]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_subfolder_that_may_not_be_read_is_an_issue(tmp_path: Path) -> None:
    _made(tmp_path, "a.png", "closed/b.png")
    (tmp_path / "closed").chmod(0)

    tree = walk(tmp_path, depth=None)

    (tmp_path / "closed").chmod(0o700)
    assert _names(tree)["."] == ["a.png"]
    assert [issue.path for issue in tree.issues] == [(tmp_path / "closed").as_posix()]


def test_a_subfolder_that_cannot_be_listed_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _made(tmp_path, "a/x.png", "b/y.png")
    real = os.scandir

    def scandir(path: Path) -> object:
        if path.name == "a":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)

    tree = walk(tmp_path, depth=None)

    assert _names(tree) == {".": [], "a": [], "b": ["y.png"]}
    assert [str(issue).partition(" (")[0] for issue in tree.issues] == [
        f"{(tmp_path / 'a').as_posix()}: Permission denied"
    ]


@pytest.mark.parametrize("name", ["nowhere", "file.txt", "nul\0"])
def test_a_root_that_cannot_be_listed_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    _made(tmp_path, "file.txt")

    with pytest.raises(DataError, match=name.rstrip("\0")):
        walk(tmp_path / name)


def test_a_deep_tree_is_no_trouble(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*["d"] * 400)
    deepest.mkdir(parents=True)
    (deepest / "a.png").touch()

    assert [path.name for files in walk(tmp_path, depth=None).folders.values() for path in files] == ["a.png"]


def test_a_folder_with_a_picture_in_it_can_be_a_clip(tmp_path: Path) -> None:
    _made(tmp_path, "text/a.txt", "deep/s/a.png")
    picture(_made(tmp_path, "frames/x") / "frames" / "0.png", caption=None)

    assert holds_pictures(tmp_path / "frames")
    assert not any(holds_pictures(tmp_path / name) for name in ("text", "deep", "nowhere"))
