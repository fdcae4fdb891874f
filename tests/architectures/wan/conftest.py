from __future__ import annotations

from pathlib import Path

import pytest

from musubi.architectures.wan.spec import Wan
from musubi.testing.checkpoints import tiny_wan


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    """Return a spec of tiny weights in original single files."""
    return tiny_wan(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_folder(tiny: Wan) -> Path:
    """Return the folder where they are."""
    return tiny.weight("dit").resolve().parent
