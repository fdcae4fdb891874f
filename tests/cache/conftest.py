from __future__ import annotations

from pathlib import Path

import pytest

from musubi.data.dataset import Dataset
from tests.data.files import clip, picture


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Return a folder of three pictures in two buckets and a clip of nine frames, with captions."""
    folder = tmp_path / "media"
    folder.mkdir()
    picture(folder / "cat.png", size=(64, 64), seed=1, caption="a cat")
    picture(folder / "cow.png", size=(64, 64), seed=2, caption="a brown cow")
    picture(folder / "fox.png", size=(80, 48), seed=3, caption="a fox in snow")
    clip(folder / "dog.mp4", frames=9, size=(64, 64), caption="a dog")
    return folder


@pytest.fixture
def dataset(media: Path) -> Dataset:
    """Return a dataset of ``media`` with clips of one, five and nine frames: six items."""
    return Dataset.from_folder(media, resolution=64, frames=(1, 5, 9))
