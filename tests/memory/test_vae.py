from __future__ import annotations

import pytest
import torch
from torch import Tensor

from musubi import ConfigError, Wan
from musubi.batch import Sample
from musubi.inference.decoding import decode, opened_decoder
from musubi.memory.components import loaded, policies_within
from musubi.memory.policy import FitContext, MemoryPolicy, arrange, placed
from musubi.memory.vae import VAETiling
from musubi.quickstart.base_model import demo_model
from musubi.testing.toy import Toy
from tests.memory.tiny import PLACEMENT

CPU = torch.device("cpu")
WAN = Wan.t2v_1_3b()
WIDTH, HEIGHT = 192, 128
BOUND = 5.0
"""Levels of 255 by which tiles of 64 pixels that overlap by half may be off on average."""


def decoded(latents: Tensor, *policies: MemoryPolicy) -> Tensor:
    """Return the frames that the demo model's VAE, which was trained, makes of latents."""
    with opened_decoder(demo_model(), policies=policies, device=CPU) as decoder:
        return decode(demo_model(), decoder, latents)


def encoded(pixels: Tensor, *policies: MemoryPolicy) -> Tensor:
    """Return the latents of pixels (F, H, W, 3)."""
    model = demo_model()
    vae = model.component("vae")
    with loaded(model.codec(), vae, policies_within(policies, vae), device=CPU, dtype=torch.float32) as loaded_vae:
        (entry,) = model.codec().encode(model.stages[0], {"vae": loaded_vae}, [Sample(name="a", pixels=pixels)])
    return entry.tensors["latents"]


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Return a picture (1, H, W, 3) of a coloured disc on a gradient."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    picture = torch.zeros(HEIGHT, WIDTH, 3)
    picture[..., 0], picture[..., 2] = rows / HEIGHT * 200, columns / WIDTH * 200
    picture[(rows - 60) ** 2 + (columns - 80) ** 2 < 40**2] = torch.tensor([20.0, 220.0, 40.0])
    return picture.to(torch.uint8)[None]


@pytest.fixture(scope="module")
def latents(pixels: Tensor) -> Tensor:
    return encoded(pixels)[None]


@pytest.fixture(scope="module")
def whole(latents: Tensor) -> Tensor:
    return decoded(latents)


def test_what_fits_into_one_tile_is_decoded_and_encoded_bit_for_bit(
    pixels: Tensor, latents: Tensor, whole: Tensor
) -> None:
    tiling = VAETiling(tile=WIDTH)

    assert torch.equal(decoded(latents, tiling), whole)
    assert torch.equal(encoded(pixels, tiling)[None], latents)


def test_tiles_that_overlap_come_near_and_nearer_the_larger_they_are(latents: Tensor, whole: Tensor) -> None:
    tilings = VAETiling(tile=64, overlap=32), VAETiling(tile=128, overlap=64)

    errors = [float((decoded(latents, tiling) - whole).abs().mean() * 255) for tiling in tilings]

    assert 0 < errors[1] < errors[0] < BOUND


def test_latents_of_tiles_come_near(pixels: Tensor, latents: Tensor) -> None:
    tiled = encoded(pixels, VAETiling(tile=128))[None]

    error = float((tiled - latents).abs().mean() / latents.std())
    assert 0 < error < 0.05


def test_however_long_a_clip_is_it_is_not_divided_along_time() -> None:
    clip = torch.randn(1, 16, 5, 8, 8, generator=torch.Generator().manual_seed(0))

    assert torch.equal(decoded(clip, VAETiling(tile=64, overlap=32)), decoded(clip))


def test_the_class_is_as_it_was_when_the_work_is_done() -> None:
    vae = demo_model().codec().load("vae", device=CPU, dtype=torch.float32)
    before = {name: value for name, value in vars(vae).items() if "til" in name}

    with placed(vae, [VAETiling(tile=512, overlap=128)], PLACEMENT):
        meanwhile = {name: value for name, value in vars(vae).items() if "til" in name}

    assert {name: value for name, value in meanwhile.items() if value != before[name]} == {
        "use_tiling": True,
        "tile_sample_min_height": 512,
        "tile_sample_min_width": 512,
        "tile_sample_stride_height": 384,
        "tile_sample_stride_width": 384,
    }
    assert {name: value for name, value in vars(vae).items() if "til" in name} == before


def test_sizes_that_do_not_fit_the_latents_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        arrange([VAETiling(tile=250, overlap=60)], FitContext.of(WAN, training=False))

    assert [(issue.path, issue.hint) for issue in caught.value.issues] == [
        ("memory[0].tile", "nearest are 248 and 256"),
        ("memory[0].overlap", "nearest are 56 and 64"),
    ]


def test_tiles_overlap_by_less_than_their_size() -> None:
    with pytest.raises(ConfigError, match="must be less than the tile"):
        VAETiling(tile=64, overlap=64)


def test_a_vae_that_cannot_work_in_tiles_says_so() -> None:
    with pytest.raises(
        ConfigError, match=r"memory\[0\]: the VAE of Toy cannot work in tiles \(hint: leave VAETiling out"
    ):
        arrange([VAETiling()], FitContext.of(Toy(), training=False))
    with pytest.raises(ConfigError, match="ToyVAE"):
        VAETiling().place(Toy().codec().load("vae", device=CPU, dtype=torch.float32), PLACEMENT)
