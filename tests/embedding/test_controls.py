from __future__ import annotations

import pytest
import torch

from musubi.batch import Batch
from musubi.embedding.controls import controls_of, framed, numbered


def batch_of(**stacked: torch.Tensor) -> Batch:
    return Batch(items=("a",), bucket="", stacked=stacked, ragged={})


def test_pictures_come_back_in_their_order_each_of_its_own_size() -> None:
    latents = [torch.full((1, 4, 1, 2, 2 + 2 * number), float(number)) for number in range(12)]

    found = controls_of(batch_of(**dict(sorted(numbered(latents).items()))))

    assert len(found) == 12
    assert all(torch.equal(one, other) for one, other in zip(found, latents, strict=True))


def test_none_are_none() -> None:
    assert controls_of(batch_of(latents=torch.zeros(1, 4, 1, 2, 2))) == ()


@pytest.mark.parametrize("shape", [(1, 4, 2, 2), (1, 4, 1, 2, 2)])
def test_a_single_one_may_have_no_number_and_no_frame_as_musubi_tuner_writes_it(shape: tuple[int, ...]) -> None:
    (found,) = controls_of(batch_of(latents_control=torch.ones(shape)))

    assert found.shape == (1, 4, 1, 2, 2)


def test_a_frame_is_added_once() -> None:
    assert framed(framed(torch.zeros(1, 4, 2, 2))).shape == (1, 4, 1, 2, 2)
