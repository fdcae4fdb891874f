"""What every test may ask for; anything about one subject lives in that subject's folder."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Before anything imports torch: pytest -n runs a process for every core, each needs one thread."""


def pytest_collection_finish() -> None:
    """Let no collection go through the libraries and ten thousand tests that are there for good: it takes 0.3 s."""
    gc.freeze()


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Return the folder that holds `pyproject.toml`."""
    return Path(__file__).parents[1]
