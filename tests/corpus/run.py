"""Making a case's files, and running what must not hang."""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from musubi.data.sample import Item
from tests.corpus.case import Case
from tests.corpus.paint import write_neighbours

_STDERR = 2

LIMIT_S = 60.0
"""Many times what any case takes on a busy machine: what is not done by then hangs."""


def made(case: Case, folder: Path) -> Path:
    """Make a case's files in a new folder and return that; skip what this system cannot have."""
    reason = case.needs()
    if reason is not None:
        pytest.skip(reason)
    root = folder / "files"
    root.mkdir()
    write_neighbours(root)
    case.write(root)
    return root


def within(work: Callable[[], None], seconds: float = LIMIT_S) -> None:
    """Do the work in a thread; fail with the stacks of all threads if it does not end in time."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  a failed assertion is raised again by the test itself
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    # What holds the interpreter's lock would keep this thread from waking up, too.
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=_STDERR)
    thread.start()
    thread.join(seconds)
    faulthandler.cancel_dump_traceback_later()
    if thread.is_alive():
        faulthandler.dump_traceback(file=_STDERR)
        pytest.fail(f"not done after {seconds:g} s")
    if failures:
        raise failures[0]


def relative(text: str, root: Path) -> str:
    """Return a text with the case's folder left out of its paths."""
    return text.replace(f"{root.as_posix()}/", "")


def place(item: Item, root: Path) -> str:
    """Return where an item's file is in the case's folder."""
    return os.path.relpath(item.path, root).replace(os.sep, "/")
