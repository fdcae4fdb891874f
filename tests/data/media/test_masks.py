from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musubi.architecture import Size
from musubi.core.errors import DataError
from musubi.data.media.masks import fitted, read_masks
from musubi.data.media.resize import stretched, to_bucket
from musubi.data.media.video import read_clip
from tests.data.files import clip, pixels


def folder(path: Path, count: int) -> Path:
    """Write masks whose alpha is 100 times their number."""
    path.mkdir()
    for number in range(count):
        Image.new("LA", (64, 48), (9, 100 * number)).save(path / f"{number}.png")
    return path


def test_masks_of_a_folder_may_be_its_pictures_alpha(tmp_path: Path) -> None:
    found = [int(mask.mean()) for mask in read_masks(folder(tmp_path / "masks", 3), (1, 2))]

    assert found == [100, 200]


@pytest.mark.parametrize("count", [0, 2])
def test_masks_that_are_not_there_are_an_error_that_names_the_folder(tmp_path: Path, count: int) -> None:
    with pytest.raises(DataError, match=rf"masks: is truncated .*frame 2 is wanted, it holds {count}"):
        list(read_masks(folder(tmp_path / "masks", count), (2,)))


def test_a_clip_counts_by_its_brightness(tmp_path: Path) -> None:
    path = clip(tmp_path / "mask.mp4", frames=4)

    found = list(read_masks(path, (1, 3)))

    for mask, frame in zip(found, read_clip(path, (1, 3)), strict=True):
        assert np.abs(mask - frame @ np.array([0.299, 0.587, 0.114])).max() < 1


def test_a_mask_reaches_the_bucket_as_its_picture_does() -> None:
    mask = pixels(64, 48)[:, :, 0]

    assert np.array_equal(fitted(mask, size=(64, 48), bucket=(48, 32)), to_bucket(mask, (48, 32)))


@pytest.mark.parametrize("size", [(32, 24), (128, 96), (96, 40)])
def test_a_mask_of_another_size_is_brought_to_its_pictures_first(size: Size) -> None:
    mask = pixels(*size)[:, :, 0]

    assert np.array_equal(fitted(mask, size=(64, 48), bucket=(48, 32)), to_bucket(stretched(mask, (64, 48)), (48, 32)))
