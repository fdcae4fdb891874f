"""The language model sees pictures as their files have them, the VAE at the size that the dataset says."""

from __future__ import annotations

from pathlib import Path

import attrs
import numpy as np
import pytest
from PIL import Image as Pillow

from musubi import DataError, NearArea, QwenImage, QwenImageCache, QwenImageDataset
from musubi.data.sources.folder import Folder
from musubi.testing.qwen_image import tiny_qwen_image

SIDE = 32


def write(path: Path, seed: int, size: tuple[int, int] = (48, 32)) -> None:
    path.parent.mkdir(exist_ok=True)
    Pillow.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)


@attrs.frozen
class Built:
    """A dataset of two pairs, its model and its cache."""

    folder: Path
    model: QwenImage

    def build(self, *, area: int = SIDE) -> dict[str, int]:
        """Build the cache, and return when each of its files was written."""
        data = QwenImageDataset(sources=(Folder(self.folder / "a", control=self.folder / "b"),), resolution=SIDE)
        cache = QwenImageCache(self.folder / "cache", model=self.model)
        cache.build(data.with_control(size=NearArea(area)), progress=False)
        return {path.name: path.stat().st_mtime_ns for path in cache.path.rglob("*.safetensors")}


@pytest.fixture
def built(tmp_path: Path) -> Built:
    for number in range(2):
        write(tmp_path / "a" / f"{number}.png", number, (SIDE, SIDE))
        write(tmp_path / "b" / f"{number}.png", 10 + number)
        (tmp_path / "a" / f"{number}.txt").write_text("give it a hat", encoding="utf-8")
    return Built(tmp_path, tiny_qwen_image(tmp_path / "files", task="edit_2509"))


def written(before: dict[str, int], after: dict[str, int]) -> list[str]:
    return sorted(name for name, time in after.items() if before.get(name) != time)


def test_nothing_is_encoded_twice(built: Built) -> None:
    assert len(first := built.build()) == 4
    assert written(first, built.build()) == []


def test_another_picture_to_change_is_seen_by_both(built: Built) -> None:
    before = built.build()
    write(built.folder / "b" / "1.png", 99)

    changed = written(before, built.build())

    assert len(changed) == 2
    assert all("1" in name for name in changed)


def test_another_size_for_the_vae_is_nothing_to_the_language_model(built: Built) -> None:
    before = built.build()

    changed = written(before, built.build(area=2 * SIDE))

    assert len(changed) == 2
    assert not any("text" in name for name in changed)


def test_another_picture_as_the_result_is_nothing_to_the_language_model(built: Built) -> None:
    before = built.build()
    write(built.folder / "a" / "0.png", 77, (SIDE, SIDE))

    (changed,) = written(before, built.build())

    assert "text" not in changed


def test_a_damaged_picture_to_change_is_named(built: Built) -> None:
    (built.folder / "b" / "0.png").write_bytes(b"no picture")
    (built.folder / "b" / "1.png").write_bytes(b"no picture")

    with pytest.raises(DataError, match=r"0\.png"):
        built.build()
