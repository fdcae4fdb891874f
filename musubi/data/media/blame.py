"""What is wrong with a conditioning file or a mask, told of the item that cannot be used without it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from musubi.core.errors import DataError, Issue


@contextmanager
def blamed(place: str, what: str) -> Generator[None]:
    """Tell what the block meets in a file as a problem of the item at ``place``; ``what`` the file is to it.

    Raises:
        DataError: ``cat.png: control is empty``, with the file itself in the hint.
    """
    try:
        yield
    except DataError as error:
        told = [Issue(place, f"{what} {issue.message}", f"{issue.path}: {issue.hint}") for issue in error.issues]
        raise DataError(error.title, told) from error
