"""FLUX.1's VAE gives the reference's latents and pictures, from a file in original names.

The reference caches a drawn sample of the posterior, and we its mean, as the authors do when they draw pictures.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from musubi import FluxKontext
from musubi.architectures.flux_kontext.vae import decode_latents
from musubi.architectures.flux_kontext.vae_facts import SCALE, SHIFT
from tests.parity.cases import golden, golden_stems, part

each_case = pytest.mark.parametrize("stem", golden_stems("models_flux_ae"))


@each_case
def test_models_flux_ae_moments_equal_the_reference(stem: str, tmp_path: Path) -> None:
    vae, tensors = _case(stem, tmp_path)

    with torch.no_grad():
        posterior = vae.encode(tensors["in.pixels"], return_dict=False)[0]

    assert (posterior.parameters - tensors["out.moments"]).abs().max() <= 2e-5
    assert (SCALE * (posterior.mode() - SHIFT) - tensors["out.latents_mean"]).abs().max() <= 2e-5
    drawn = posterior.mean + posterior.std * tensors["in.eps"]
    assert (SCALE * (drawn - SHIFT) - tensors["out.latents_sampled"]).abs().max() <= 2e-5


@each_case
def test_models_flux_ae_pictures_equal_the_reference(stem: str, tmp_path: Path) -> None:
    vae, tensors = _case(stem, tmp_path)
    expected = tensors["out.decoded_from_latents_mean"].clamp(-1.0, 1.0)

    frames = decode_latents(vae, tensors["out.latents_mean"][:, :, None])

    assert (frames[:, 0].permute(0, 3, 1, 2) * 2.0 - 1.0 - expected).abs().max() <= 2e-5


def _case(stem: str, folder: Path) -> tuple[AutoencoderKL, dict[str, Tensor]]:
    _, tensors = golden(stem)
    save_file(part(tensors, "ckpt."), folder / "ae.safetensors")
    codec = FluxKontext.dev().with_weights(vae=folder / "ae.safetensors").codec()
    vae = codec.load("vae", device=torch.device("cpu"), dtype=torch.float32)
    assert isinstance(vae, AutoencoderKL)
    return vae, tensors
