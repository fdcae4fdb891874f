from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from musubi.architectures.wan.conditions import Encode
from musubi.architectures.wan.one_frame import OneFrame, encode_one_frame
from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.vae import load_vae
from musubi.causal_vae.coding import encode_video
from musubi.core.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def encode(tiny: Wan) -> Encode:
    vae = load_vae(tiny.weight("vae").resolve(), device=torch.device("cpu"), dtype=torch.float32)
    return partial(encode_video, vae)


def pictures(seed: int) -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@given(places=st.lists(st.integers(0, 1023), min_size=2, max_size=3, unique=True))
def test_every_picture_lies_at_its_own_position(places: list[int]) -> None:
    layout = OneFrame(target=places[0], controls=tuple(places[1:]))

    found: dict[int | None, int] = {}
    found.update(zip(layout.slots, layout.positions, strict=True))

    assert list(layout.positions) == sorted(places)
    assert found.pop(None) == places[0]
    assert found == dict(enumerate(places[1:]))


@pytest.mark.parametrize("controls", [(0, 2), (2, 0)])
def test_frames_are_encoded_alone_and_lie_in_time(controls: tuple[int, ...], encode: Encode) -> None:
    target, first, second = pictures(0), pictures(1), pictures(2)

    made = encode_one_frame(encode, OneFrame(target=1, controls=controls), target, [first, second])

    in_time = [first, target, second] if controls == (0, 2) else [second, target, first]
    latents = torch.cat([encode(picture[:, :, None]) for picture in in_time], dim=2)
    grey = encode(torch.zeros(2, 3, 1, 32, 48))
    torch.testing.assert_close(made.latents, latents, rtol=0, atol=1e-5)
    torch.testing.assert_close(made.latents_image[:, 4:, ::2], latents[:, :, ::2], rtol=0, atol=1e-5)
    torch.testing.assert_close(made.latents_image[:, 4:, 1:2], grey, rtol=0, atol=1e-5)
    assert made.latents_image[:, :4].mean((0, 1, 3, 4)).tolist() == [1.0, 0.0, 1.0]
    assert made.f_indices.tolist() == [0, 1, 2]
    assert made.f_indices.dtype == torch.int32


@pytest.mark.parametrize(
    ("target", "controls", "path"),
    [
        (1, (), "controls"),
        (1, (0, 2, 3), "controls"),
        (0, (0,), "target"),
        (-1, (0,), "target"),
        (1, (-1,), "controls"),
        (1024, (0,), ""),
    ],
)
def test_impossible_layouts_are_refused(target: int, controls: tuple[int, ...], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OneFrame(target=target, controls=controls)

    assert [issue.path for issue in caught.value.issues] == [path]


def test_a_picture_without_position_is_refused(encode: Encode) -> None:
    with pytest.raises(DataError, match="2 given, 1 positions"):
        encode_one_frame(encode, OneFrame(target=1), pictures(0), [pictures(1), pictures(2)])


def test_a_layout_survives_toml() -> None:
    layout = OneFrame(target=1, controls=(2, 0))

    assert OneFrame.from_toml(layout.to_toml()) == layout
