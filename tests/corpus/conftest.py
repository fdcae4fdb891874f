"""The corpus on disk: each case is made once, when it is first asked for."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tests.corpus.case import Case
from tests.corpus.corpus import CASES
from tests.corpus.run import made


@attrs.frozen
class Corpus:
    """The cases' folders below one folder."""

    folder: Path
    _roots: dict[str, Path] = attrs.field(factory=dict, init=False)

    def root(self, case: Case) -> Path:
        """Return the folder of a case, made if need be; skips what this system cannot have."""
        if case.name not in self._roots:
            parent = self.folder / f"{CASES.index(case):03}"
            parent.mkdir(exist_ok=True)
            self._roots[case.name] = made(case, parent)
        return self._roots[case.name]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))
