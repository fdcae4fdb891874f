"""One builder at a time: a lock file in the cache's folder."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from musubi.core.control import CancelToken
from musubi.core.errors import CacheError, Issue, shown

logger = logging.getLogger(__name__)

FILE = ".lock"
_PAUSE_S = 0.2
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
"""What a file system without locks answers."""


@contextmanager
def locked(folder: Path, *, tell: Callable[[str], None], cancel: CancelToken | None = None) -> Generator[bool]:
    """Hold the lock of a cache's folder, waiting for another build to end; give False if cancelled while waiting.

    The system lets go of the lock of a process that dies. On a file system without locks a warning is told and the
    work goes on.

    Raises:
        CacheError: The folder may not be written.
    """
    lock = FileLock(folder / FILE)
    try:
        held = _acquire(lock, tell=tell, cancel=cancel or CancelToken())
        yield held
    finally:
        lock.release()


def _acquire(lock: FileLock, *, tell: Callable[[str], None], cancel: CancelToken) -> bool:
    told = False
    while not cancel.cancelled:
        try:
            lock.acquire(timeout=_PAUSE_S if told else 0, poll_interval=_PAUSE_S / 4)
        except Timeout:
            if not told:
                tell("another build of this cache is running, waiting")
            told = True
        except (OSError, NotImplementedError) as error:
            _check_support(Path(lock.lock_file), error)
            tell("this file system has no locks: do not build the same cache twice at once")
            return True
        else:
            return True
    return False


def _check_support(path: Path, error: OSError | NotImplementedError) -> None:
    """Raise unless the error says that the file system has no locks."""
    if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
        hint = "give a folder that may be written, or free some space"
        raise CacheError("cannot write", [Issue(shown(path), error.strerror or str(error), hint)]) from error
