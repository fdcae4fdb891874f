from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musubi import AdamW, Cache, Cosine, Dataset, LoRA, Trainer
from musubi.testing.toy import Toy


def write_pictures(folder: Path, count: int = 7) -> Path:
    """Write pictures of two shapes with captions, so that there are two buckets and batches of unequal size."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for i in range(count):
        height, width = ((32, 64), (48, 48))[i % 2]
        pixels = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"picture_{i}.png")
        (folder / f"picture_{i}.txt").write_text(f"picture number {i}", encoding="utf-8")
    return folder


def build_cache(folder: Path, count: int = 7) -> Cache[Toy]:
    data = Dataset.from_folder(write_pictures(folder / "pictures", count), resolution=48).with_geometry(Toy().geometry)
    return Cache(folder / "cache", model=Toy()).build(data.with_batch_size(2), progress=False)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache[Toy]:
    return build_cache(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def trainer(cache: Cache[Toy], tmp_path: Path) -> Trainer[Toy]:
    """A trainer that uses everything random: two buckets, batches of unequal size, dropout, a curved schedule."""
    return Trainer(
        model=Toy(),
        cache=cache,
        steps=10,
        output=tmp_path / "out",
        seed=3,
        network=LoRA(rank=4, alpha=2, dropout=0.2),
        optimizer=AdamW(lr=1e-2),
        schedule=Cosine(warmup=2),
        accumulate=2,
    )
