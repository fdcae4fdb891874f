"""What every test may ask for; anything about one subject lives in that subject's folder."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def project_root() -> Path:
    """Return the folder that holds `pyproject.toml`."""
    return Path(__file__).parents[1]
