"""The errors a user can meet, each naming what is wrong, where, and the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import attrs


def printable(text: str) -> str:
    """Return a text on one line, with escapes for what cannot be shown or would steer a terminal."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


@attrs.frozen
class Issue:
    """One problem: the path of the field or file, what is wrong with it, and what to do; each is one line."""

    path: str = attrs.field(converter=printable)
    message: str = attrs.field(converter=printable)
    hint: str = attrs.field(default="", converter=printable)

    def under(self, prefix: str) -> Issue:
        """Return the same issue seen from one level up, e.g. ``blocks`` under ``memory[1]``."""
        if not self.path:
            return attrs.evolve(self, path=prefix)
        joint = "" if self.path.startswith("[") or not prefix else "."
        return attrs.evolve(self, path=f"{prefix}{joint}{self.path}")

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.message}" + (f" (hint: {self.hint})" if self.hint else "")


class MusubiError(Exception):
    """The root of everything this library raises on purpose."""


_LISTED = 30
"""Problems that an error's text lists before it only counts: a folder may have thousands."""


class _IssuesError(MusubiError):
    """An error that holds every problem found, not only the first."""

    def __init__(self, title: str, issues: Iterable[Issue] = ()) -> None:
        self.title = title
        self.issues: tuple[Issue, ...] = tuple(issues)
        super().__init__(title, self.issues)

    def __str__(self) -> str:
        if not self.issues:
            return self.title
        if len(self.issues) == 1:
            return f"{self.title}: {self.issues[0]}"
        lines = [f"  - {issue}" for issue in self.issues[:_LISTED]]
        if len(self.issues) > _LISTED:
            lines.append(f"  - and {len(self.issues) - _LISTED} more; the error's issues has them all")
        return "\n".join([f"{self.title}: {len(self.issues)} problems", *lines])


class ConfigError(_IssuesError):
    """A value, a combination or a configuration file is not acceptable; ``issues`` lists all of it."""


class DataError(_IssuesError):
    """A media file, a caption or a data source cannot be used; each issue's path is the file."""


class CacheError(_IssuesError):
    """A cache is missing, damaged or was made for something else."""


class WeightsError(_IssuesError):
    """A checkpoint cannot be read or does not fit the model asked for."""


class RunError(MusubiError):
    """A training step failed; says at which step, on which items, in which bucket and at which noise levels."""

    def __init__(
        self,
        message: str,
        *,
        step: int,
        items: Sequence[str] = (),
        bucket: str = "",
        sigma: Sequence[float] = (),
        hint: str = "",
    ) -> None:
        self.step, self.items, self.bucket, self.sigma = step, tuple(items), bucket, tuple(sigma)
        self.message, self.hint = message, hint
        super().__init__(message)

    def __reduce__(self) -> tuple[Callable[[], RunError], tuple[()]]:
        again = partial(RunError, self.message, step=self.step, hint=self.hint)
        return (partial(again, items=self.items, bucket=self.bucket, sigma=self.sigma), ())

    def __str__(self) -> str:
        facts = [f"step {self.step}"]
        if self.items:
            facts.append("items " + ", ".join(self.items))
        if self.bucket:
            facts.append(f"bucket {self.bucket}")
        if self.sigma:
            facts.append("sigma " + ", ".join(f"{value:.4f}" for value in self.sigma))
        return f"{self.message} ({'; '.join(facts)})" + (f" (hint: {self.hint})" if self.hint else "")


def shown(path: Path | str) -> str:
    """Return a path as errors show it: with forward slashes on every system, on one line, printable everywhere."""
    return printable((path if isinstance(path, Path) else Path(path)).as_posix())
