from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.vae import load_vae
from musubi.causal_vae.coding import decode_latents, encode_pixels, encode_video
from musubi.causal_vae.facts import LATENTS_MEAN, LATENTS_STD
from musubi.testing.checkpoints import tiny_wan


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return tiny_wan(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def vae(tiny: Wan) -> AutoencoderKLWan:
    return load_vae(tiny.weight("vae").resolve(), device=torch.device("cpu"), dtype=torch.float32)


def test_latents_are_the_mean_normalised_channel_by_channel(vae: AutoencoderKLWan) -> None:
    video = torch.rand(1, 3, 5, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1

    latents = encode_video(vae, video)

    with torch.no_grad():
        mean = vae.encode(video, return_dict=False)[0].mode()
    expected = (mean - torch.tensor(LATENTS_MEAN).view(1, -1, 1, 1, 1)) / torch.tensor(LATENTS_STD).view(1, -1, 1, 1, 1)
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-5)


def test_pixels_from_black_to_white_span_minus_one_to_one(vae: AutoencoderKLWan) -> None:
    pixels = torch.zeros(2, 1, 32, 32, 3, dtype=torch.uint8)
    pixels[:, :, :, 16:] = 255
    video = (pixels.float() / 255 * 2 - 1).permute(0, 4, 1, 2, 3)

    torch.testing.assert_close(encode_pixels(vae, pixels), encode_video(vae, video), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_shapes_follow_the_geometry(frames: int, vae: AutoencoderKLWan) -> None:
    latents = encode_pixels(vae, torch.full((2, frames, 32, 48, 3), 100, dtype=torch.uint8))

    decoded = decode_latents(vae, latents)

    assert tuple(latents.shape) == (2, *Wan.t2v_1_3b().geometry.latent_shape((48, 32), frames))
    assert decoded.shape == (2, frames, 32, 48, 3)
    assert decoded.dtype == torch.float32


def test_decoded_frames_stay_between_zero_and_one(vae: AutoencoderKLWan) -> None:
    decoded = decode_latents(vae, 100 * torch.randn(2, 16, 1, 4, 4, generator=torch.Generator().manual_seed(0)))

    assert decoded.min() >= 0
    assert decoded.max() <= 1


def test_latents_take_the_type_of_the_vae(tiny: Wan) -> None:
    half = load_vae(tiny.weight("vae").resolve(), device=torch.device("cpu"), dtype=torch.bfloat16)

    assert encode_pixels(half, torch.zeros(1, 1, 16, 16, 3, dtype=torch.uint8)).dtype == torch.bfloat16
