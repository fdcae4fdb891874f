from __future__ import annotations

import pytest
import torch

from musubi.batch import Sample
from musubi.core.errors import DataError
from musubi.data.media.frames import covered, scaled
from musubi.data.media.pictures import control_batches, picture_batch, picture_size


def picture(value: int, width: int = 4, height: int = 2, frames: int = 1) -> torch.Tensor:
    return torch.full((frames, height, width, 3), value, dtype=torch.uint8)


def test_pictures_are_stacked() -> None:
    samples = [Sample(name=str(n), pixels=picture(n)) for n in range(3)]

    assert picture_batch(samples)[:, 0, 0, 0, 0].tolist() == [0, 1, 2]


def test_all_samples_without_pixels_are_named() -> None:
    samples = [Sample(name="a"), Sample(name="b", pixels=picture(1)), Sample(name="c")]

    with pytest.raises(DataError, match="nothing to encode") as error:
        picture_batch(samples)

    assert [issue.path for issue in error.value.issues] == ["a", "c"]


def test_the_first_pictures_to_change_come_together_then_the_second_ones() -> None:
    samples = [
        Sample(name=str(n), controls={"control": [picture(n), picture(10 + n, width=8, frames=3)]}) for n in range(2)
    ]

    first, second = control_batches(samples)

    assert first.shape == (2, 1, 2, 4, 3)
    assert second.shape == (2, 1, 2, 8, 3)
    assert second[:, 0, 0, 0, 0].tolist() == [10, 11]


def test_all_samples_without_a_picture_to_change_are_named() -> None:
    samples = [Sample(name="a"), Sample(name="b", controls={"control": []})]

    with pytest.raises(DataError, match="nothing to change") as error:
        control_batches(samples)

    assert [issue.path for issue in error.value.issues] == ["a", "b"]


def test_a_picture_s_size_is_width_and_height() -> None:
    assert picture_size(picture(0, width=6, height=3)) == (6, 3)


def test_a_picture_covers_its_size_and_its_middle_is_kept() -> None:
    wide = torch.zeros(1, 4, 12, 3, dtype=torch.uint8)
    wide[:, :, 4:8] = 200

    found = covered(wide, (4, 4))

    assert found.shape == (1, 4, 4, 3)
    assert (found == 200).all()


def test_pixels_go_from_minus_one_to_one_with_channels_first() -> None:
    values = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(24).reshape(2, 1, 2, 4, 3)

    video = scaled(values)

    assert video.shape == (2, 3, 1, 2, 4)
    assert video.dtype == torch.float32
    assert (video[0] == -1).all()
    assert (video[1] == 1).all()
