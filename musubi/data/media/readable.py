"""One face for all that damaged media files provoke in Pillow and FFmpeg: an error that names the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from av.error import FFmpegError

from musubi.core.errors import DataError, Issue, shown

_DAMAGED = (
    FFmpegError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    Warning,
)
"""What the decoders of Pillow and FFmpeg raise on damaged files; a warning where the user made them errors."""


@contextmanager
def readable(path: Path) -> Generator[None]:
    """Turn whatever a damaged file provokes inside the block into a ``DataError`` that names the file.

    Raises:
        DataError: There is no such file, it may not or cannot be read, it is damaged, or too big for the memory.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise _unreadable(path, "no such file", "check the path") from error
    except PermissionError as error:
        raise _unreadable(path, "may not be read", "check its permissions") from error
    except MemoryError as error:
        raise _unreadable(path, "is too big for the memory", "make it smaller") from error
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno and not isinstance(error, FFmpegError):
            hint = f"{error.strerror}; try again, or copy it from where it came"
            raise _unreadable(path, "the system cannot read it", hint) from error
        hint = f"open it in a viewer; replace or remove it ({type(error).__name__})"
        raise _unreadable(path, "is damaged or not what its name says", hint) from error


def _unreadable(path: Path, message: str, hint: str) -> DataError:
    return DataError("cannot read", [Issue(shown(path), message, hint)])
