"""Links, pipes, folders called like files, and what may not be read."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from musubi.data.dataset import Dataset
from musubi.data.sources.folder import Folder
from tests.corpus.case import Case, Kept, dataset, nothing
from tests.corpus.paint import write_bytes, write_picture

_ODD = "odd.png"


def _tree(root: Path) -> Dataset:
    return dataset(Folder(root, recursive=True))


def _no_links() -> str | None:
    return "links need a privilege here" if sys.platform == "win32" else None


def _no_pipes() -> str | None:
    return None if hasattr(os, "mkfifo") else "there are no pipes here"


def _all_may_be_read() -> str | None:
    """Return why nothing can be made unreadable here."""
    with TemporaryDirectory() as folder:
        locked = Path(folder) / "locked"
        locked.touch(mode=0)
        return "this user reads everything" if os.access(locked, os.R_OK) else None


def _elsewhere(root: Path) -> Path:
    """Write a picture outside the case's folder and return it."""
    return write_picture(root.parent / "elsewhere.png")


def _linked(root: Path) -> None:
    write_picture(root / _ODD).unlink()
    (root / _ODD).symlink_to(_elsewhere(root))


def _dangling(root: Path) -> None:
    write_picture(root / _ODD).unlink()
    (root / _ODD).symlink_to(root / "gone.png")


def _own_link(root: Path) -> None:
    write_picture(root / _ODD).unlink()
    (root / _ODD).symlink_to(_ODD)


def _two_links(root: Path) -> None:
    for name, other in (("odd.png", "even.png"), ("even.png", "odd.png")):
        write_picture(root / name).unlink()
        (root / name).symlink_to(other)


def _loops(root: Path) -> None:
    """Write folders that lead round in circles."""
    inner = root / "inner"
    write_picture(inner / _ODD)
    (inner / "up").symlink_to(root, target_is_directory=True)
    (inner / "self").symlink_to(inner, target_is_directory=True)
    (root / "again").symlink_to(inner, target_is_directory=True)
    (root / "nowhere").symlink_to("nowhere", target_is_directory=True)


def _linked_folder(root: Path) -> None:
    outside = root.parent / "outside"
    write_picture(outside / _ODD)
    for name in ("a", "b"):
        (root / name).symlink_to(outside, target_is_directory=True)


def _hard_link(root: Path) -> None:
    write_picture(root / _ODD).unlink()
    os.link(root / "fine.png", root / _ODD)


def _linked_caption(root: Path) -> None:
    write_picture(root / _ODD)
    (root / "odd.txt").unlink()
    (root / "odd.txt").symlink_to(_elsewhere(root).with_suffix(".txt"))


def _pipe(name: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        write_picture(root / _ODD).unlink()
        os.mkfifo(root / name)

    return write


def _socket(root: Path) -> None:
    here = Path.cwd()
    os.chdir(root)  # the whole path may be longer than a socket's address
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(_ODD)
    finally:
        os.chdir(here)


def _locked(*names: str) -> Callable[[Path], None]:
    """Return what writes pictures and makes files or folders unreadable."""

    def write(root: Path) -> None:
        write_picture(root / _ODD)
        write_picture(root / "inner" / "deep.png")
        for name in names:
            (root / name).chmod(0)

    return write


def _called_like_files(root: Path) -> None:
    for name in ("odd.png", "odd.mp4"):
        write_bytes(root / name / "inside.md", b"")


CASES = (
    Case(name="a link to a picture is that picture", write=_linked, kept=[Kept(_ODD)], needs=_no_links),
    Case(
        name="a link that leads nowhere is named",
        write=_dangling,
        reported={_ODD: "leads to no file"},
        needs=_no_links,
    ),
    Case(name="a link to itself is named", write=_own_link, reported={_ODD: "leads to no file"}, needs=_no_links),
    Case(
        name="links to one another are named",
        write=_two_links,
        reported={_ODD: "leads to no file", "even.png": "leads to no file"},
        needs=_no_links,
    ),
    Case(
        name="folders that lead round in circles are read once",
        write=_loops,
        read=_tree,
        kept=[Kept(f"inner/{_ODD}", captions=(f"this is {_ODD}",))],
        needs=_no_links,
    ),
    Case(
        name="two links to a folder are one folder",
        write=_linked_folder,
        read=_tree,
        kept=[Kept(f"a/{_ODD}", captions=(f"this is {_ODD}",))],
        needs=_no_links,
    ),
    Case(name="a file of two names is two items", write=_hard_link, kept=[Kept(_ODD)]),
    Case(
        name="a link to a caption is that caption",
        write=_linked_caption,
        kept=[Kept(_ODD, captions=("this is elsewhere.png",))],
        needs=_no_links,
    ),
    *(
        Case(
            name=f"a pipe called {name} is named, and not waited for",
            write=_pipe(name),
            reported={name: "not an ordinary file"},
            needs=_no_pipes,
        )
        for name in (_ODD, "odd.mp4")
    ),
    Case(name="a socket called .png is named", write=_socket, reported={_ODD: "not an ordinary file"}, needs=_no_links),
    Case(name="folders called like files are folders", write=_called_like_files),
    Case(
        name="folders called like files are looked into with all others",
        write=lambda root: write_picture(root / "odd.mp4" / "inside.png"),
        read=_tree,
        kept=[Kept("odd.mp4/inside.png", captions=("this is inside.png",))],
    ),
    Case(
        name="a picture that may not be read is named",
        write=_locked(_ODD),
        reported={_ODD: "may not be read"},
        needs=_all_may_be_read,
    ),
    Case(
        name="a caption that may not be read is named",
        write=_locked("odd.txt"),
        reported={"odd.txt": "cannot be read"},
        needs=_all_may_be_read,
    ),
    Case(
        name="a folder that may not be read is named",
        write=_locked("inner"),
        read=_tree,
        kept=[Kept(_ODD)],
        reported={"inner": "Permission denied"},
        needs=_all_may_be_read,
    ),
    Case(
        name="a folder that is missing is refused",
        write=nothing,
        read=lambda root: dataset(Folder(root / "gone")),
        refused="cannot read folder",
    ),
    Case(
        name="a file for a folder is refused",
        write=nothing,
        read=lambda root: dataset(Folder(root / "fine.png")),
        refused="cannot read folder",
    ),
    Case(
        name="an empty folder is refused",
        write=lambda root: (root / "empty").mkdir(),
        read=lambda root: dataset(Folder(root / "empty")),
        refused="holds no picture and no clip",
    ),
    Case(
        name="a folder with pictures in its subfolders alone is refused with the way out",
        write=lambda root: write_picture(root / "empty" / "inner" / _ODD),
        read=lambda root: dataset(Folder(root / "empty")),
        refused="recursive=True",
    ),
)
"""Links and the like: each file once, none waited for."""
