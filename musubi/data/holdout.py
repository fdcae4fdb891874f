"""Which files are kept out of training to measure on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable
from pathlib import Path

import attrs

from musubi.core.errors import Issue
from musubi.core.fields import as_path, count, field, share
from musubi.core.spec import Spec


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else as_path(value)


@attrs.frozen(kw_only=True)
class HoldOut(Spec):
    """Hold out a share of the files, or all files in a folder; windows of one clip are never divided.

    Which files make up a share depends on their names and ``seed``, not on their order; a file that is added or taken
    away moves at most one other.

    Example:
        >>> from musubi import HoldOut
        >>> sorted(HoldOut(share=0.25).chosen(["cat", "dog", "fox", "owl"]))
        ['dog']
    """

    share: float = field(default=0.0, check=share)
    folder: Path | None = attrs.field(default=None, converter=_path)
    seed: int = field(default=0, check=count(0))

    def problems(self) -> Iterable[Issue]:
        """Yield what makes the choice no choice."""
        if (self.share > 0) == (self.folder is not None):
            yield Issue("share", "give either a share above 0 or a folder", "HoldOut(share=0.1)")
        if self.share == 1:
            yield Issue("share", "leaves nothing to train on", "HoldOut(share=0.1)")

    def chosen(self, names: Collection[str]) -> frozenset[str]:
        """Return the names that make up the share, at least one of several."""
        order = sorted(set(names), key=self._rank)
        wanted = min(math.ceil(self.share * len(order) - 1e-9), len(order) - 1)  # 0.07 * 100 is a little above 7
        return frozenset(order[: max(0, wanted)])

    def holds(self, path: Path) -> bool:
        """Return whether a file lies in the folder."""
        return self.folder is not None and path.resolve().is_relative_to(self.folder.resolve())

    def _rank(self, name: str) -> str:
        return hashlib.sha256(f"{self.seed}/{name}".encode(errors="surrogateescape")).hexdigest()
