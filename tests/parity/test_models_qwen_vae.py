"""Qwen-Image's VAE gives the reference's latents and pictures, in diffusers' names and in the original ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from safetensors.torch import save_file
from torch import Tensor

from musubi import QwenImage
from musubi.causal_vae.coding import decode_video, encode_video
from tests.parity.cases import golden, golden_stems, part

each_case = pytest.mark.parametrize("stem", golden_stems("models_qwen_vae"))
each_naming = pytest.mark.parametrize("naming", ["diffusers", "original"])


@each_case
@each_naming
def test_models_qwen_vae_latents_equal_the_reference(stem: str, naming: str, tmp_path: Path) -> None:
    vae, tensors = _case(stem, naming, tmp_path)

    latents = encode_video(vae, tensors["in.pixels"][:, :, None])

    assert (latents - tensors["out.latents"]).abs().max() <= _tolerance(stem)


@each_case
@each_naming
def test_models_qwen_vae_pictures_equal_the_reference(stem: str, naming: str, tmp_path: Path) -> None:
    vae, tensors = _case(stem, naming, tmp_path)

    pictures = decode_video(vae, tensors["out.latents"])[:, :, 0]

    assert ((pictures + 1.0) / 2.0 - tensors["out.decoded_pixels_0_1"]).abs().max() <= _tolerance(stem)


@each_case
def test_models_qwen_vae_several_frames_equal_the_reference(stem: str, tmp_path: Path) -> None:
    vae, tensors = _case(stem, "diffusers", tmp_path)
    config = golden(stem)[0]["config"]
    mean, std = (torch.tensor(config[f"latents_{name}"]).view(1, -1, 1, 1, 1) for name in ("mean", "std"))

    latents = encode_video(vae, tensors["in.video"])

    assert (latents * std + mean - tensors["out.video_mean_unnormalised"]).abs().max() <= _tolerance(stem)


def _tolerance(stem: str) -> float:
    return float(str(golden(stem)[0]["tolerance"]).split()[0])


def _case(stem: str, naming: str, folder: Path) -> tuple[AutoencoderKLQwenImage, dict[str, Tensor]]:
    meta, tensors = golden(stem)
    statistics = ("latents_mean", "latents_std")
    told = {f"qwen_image_vae.{name}": json.dumps(meta["config"][name]) for name in statistics}
    content, original = part(tensors, "ckpt."), meta["comfyui_key_of"]
    if naming == "original":
        assert {*content} <= {*original}
        content = {original[name]: tensor for name, tensor in content.items()}
    save_file(
        content,
        folder / "vae.safetensors",
        metadata=told,
    )
    codec = QwenImage.text_to_image().with_weights(vae=folder / "vae.safetensors").codec()
    vae = codec.load("vae", device=torch.device("cpu"), dtype=torch.float32)
    assert isinstance(vae, AutoencoderKLQwenImage)
    return vae, tensors
