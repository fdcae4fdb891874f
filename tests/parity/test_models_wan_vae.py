"""The VAE gives the reference's latents and frames, from checkpoints in the original layout.

In one process the reference's own class and ours agree to the last bit, encoding and decoding. What is left is how two
machines round: at 9 frames the golden frames and ours are each about 4.5e-6 from the same computation in float64, and
so 8.5e-6 from one another (instruction set and oneDNN move that between 5e-6 and 8.5e-6, threads do not). It is this
seed's weights that amplify so much: other seeds and sizes, up to 17 frames, are within 3.5e-6.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from safetensors.torch import save_file
from torch import Tensor

from musubi.architectures.wan.spec import Wan
from musubi.causal_vae.coding import decode_video, encode_video
from tests.parity.cases import golden, golden_stems, part

CASES = [
    (stem, length)
    for stem in golden_stems("models_wan_vae")
    for length in sorted(name.removeprefix("in.video_") for name in golden(stem)[1] if name.startswith("in.video_"))
]
each_case = pytest.mark.parametrize(("stem", "length"), CASES)


@each_case
def test_models_wan_vae_latents_equal_the_reference(stem: str, length: str, tmp_path: Path) -> None:
    vae, tensors = _case(stem, tmp_path)

    latents = encode_video(vae, tensors[f"in.video_{length}"])

    assert (latents - tensors[f"out.latent_{length}"]).abs().max() <= 1e-5


@each_case
def test_models_wan_vae_frames_equal_the_reference(stem: str, length: str, tmp_path: Path) -> None:
    vae, tensors = _case(stem, tmp_path)

    frames = decode_video(vae, tensors[f"in.z_{length}"])

    assert (frames - tensors[f"out.decoded_{length}"]).abs().max() <= 1e-5


def _case(stem: str, folder: Path) -> tuple[AutoencoderKLWan, dict[str, Tensor]]:
    meta, tensors = golden(stem)
    statistics = {f"wan_vae.latents_{name}": json.dumps(meta["config"][name]) for name in ("mean", "std")}
    save_file(part(tensors, "ckpt."), folder / "vae.safetensors", metadata=statistics)
    codec = Wan.t2v_1_3b().with_weights(vae=folder / "vae.safetensors").codec()
    vae = codec.load("vae", device=torch.device("cpu"), dtype=torch.float32)
    assert isinstance(vae, AutoencoderKLWan)
    return vae, tensors
