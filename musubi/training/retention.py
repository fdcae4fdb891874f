"""Which of a run's older files make room for newer ones."""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path

from musubi.core.errors import shown
from musubi.training.files import Written, parsed, present

logger = logging.getLogger(__name__)


def outdated(written: Path, name: str, *, keep: int, spared: Collection[Path] = ()) -> tuple[Path, ...]:
    """Return what should go once ``written``, of the run called ``name``, is there: all but the newest ``keep``.

    Only what is of the same kind goes: LoRAs or states, written by step or by epoch. What is last or best always
    stays, and so do ``written`` and ``spared``. The newest are those written last, so what an earlier run of the same
    name left behind is older whatever its number, and goes too, however much it is.
    """
    kind = parsed(written.name, name)
    if kind is None or kind.when not in ("step", "epoch"):
        return ()
    alike = [
        (path, other)
        for path, other in present(written.parent, name)
        if (other.when, other.state) == (kind.when, kind.state) and path.name != written.name
    ]
    alike.sort(key=_age, reverse=True)
    names = {path.name for path in spared}
    return tuple(path for path, _ in alike[keep - 1 :] if path.name not in names)


def clear(written: Path, name: str, *, keep: int, spared: Collection[Path] = ()) -> tuple[Path, ...]:
    """Remove what is ``outdated`` and return what is gone; what cannot be removed stays, with a warning in the log."""
    return tuple(path for path in outdated(written, name, keep=keep, spared=spared) if _removed(path))


def _age(found: tuple[Path, Written]) -> tuple[int, int]:
    """Return the time of writing, then the number: clocks of some file systems are coarse."""
    path, written = found
    return path.stat().st_mtime_ns, written.number


def _removed(path: Path) -> bool:
    try:
        if path.is_dir():
            _remove_folder(path)
        else:
            path.unlink()
    except OSError as error:  # in use, or no longer there: no reason to end a run
        logger.warning("could not remove %s: %s", shown(path), error.strerror or error)
        return False
    return True


def _remove_folder(path: Path) -> None:
    """Take the folder out of sight first: a state is complete or absent, also when this is killed half-way.

    The name is that of an unfinished save, which the next run of the same name clears away.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
