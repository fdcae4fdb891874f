from __future__ import annotations

import errno
import struct
import zlib
from pathlib import Path

import av
import pytest

from musubi.core.errors import DataError, Issue
from musubi.data.media.readable import readable

PATH = Path("folder") / "a.png"


@pytest.mark.parametrize(
    "error",
    [
        OSError("image file is truncated"),
        SyntaxError("not a PNG file"),
        ValueError("bad"),
        EOFError(),
        KeyError(1),
        IndexError(),
        TypeError(),
        ZeroDivisionError(),
        struct.error(),
        zlib.error(),
        RuntimeError(),
        UserWarning("corrupt"),
        av.error.InvalidDataError(1, "Invalid data"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_damaged_file_provokes_becomes_an_error_that_names_it(error: Exception) -> None:
    with pytest.raises(DataError, match=r"folder/a\.png: is damaged") as caught, readable(PATH):
        raise error

    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(), "no such file"),
        (PermissionError(), "may not be read"),
        (MemoryError(), "too big for the memory"),
        (OSError(errno.EIO, "Input/output error"), r"the system cannot read it \(hint: Input/output error"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_the_files_fault_is_told_apart(error: Exception, message: str) -> None:
    with pytest.raises(DataError, match=message), readable(PATH):
        raise error


def test_an_error_that_says_more_stays_as_it_is() -> None:
    own = DataError("cannot read", [Issue("a.png", "is a web page")])

    with pytest.raises(DataError) as caught, readable(PATH):
        raise own

    assert caught.value is own


def test_a_person_may_stop_it() -> None:
    with pytest.raises(KeyboardInterrupt), readable(PATH):
        raise KeyboardInterrupt
