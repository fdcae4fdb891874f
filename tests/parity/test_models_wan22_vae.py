"""The VAE of Wan 2.2 TI2V-5B gives the official code's latents and frames, from checkpoints in the original layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from safetensors.torch import save_file
from torch import Tensor

from musubi.architectures.wan.vae import load_vae
from musubi.causal_vae.coding import decode_video, encode_video
from tests.parity.cases import golden, golden_stems, part

CASES = [
    (stem, length)
    for stem in golden_stems("models_wan22_vae")
    for length in sorted(name.removeprefix("in.video_") for name in golden(stem)[1] if name.startswith("in.video_"))
]
each_case = pytest.mark.parametrize(("stem", "length"), CASES)


@each_case
def test_models_wan22_vae_latents_equal_the_official_ones(stem: str, length: str, tmp_path: Path) -> None:
    vae, tensors = _case(stem, tmp_path)

    latents = encode_video(vae, tensors[f"in.video_{length}"])

    assert (latents - tensors[f"out.latent_{length}"]).abs().max() <= 1e-5


@each_case
def test_models_wan22_vae_frames_equal_the_official_ones(stem: str, length: str, tmp_path: Path) -> None:
    vae, tensors = _case(stem, tmp_path)

    frames = decode_video(vae, tensors[f"in.z_{length}"])

    assert (frames - tensors[f"out.decoded_{length}"]).abs().max() <= 1e-5


def _case(stem: str, folder: Path) -> tuple[AutoencoderKLWan, dict[str, Tensor]]:
    """Return the VAE, whose latents are left as they are where the case names no statistics of theirs."""
    meta, tensors = golden(stem)
    channels = meta["config"]["z_dim"]
    plain = {"mean": [0.0] * channels, "std": [1.0] * channels}
    statistics = {f"wan_vae.latents_{name}": json.dumps(meta["config"].get(name, plain[name])) for name in plain}
    save_file(part(tensors, "ckpt."), folder / "vae.safetensors", metadata=statistics)
    return load_vae(folder / "vae.safetensors", kind="vae22", device=torch.device("cpu"), dtype=torch.float32), tensors
