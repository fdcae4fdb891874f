from __future__ import annotations

from pathlib import Path

from musubi.architectures.wan.detect import describe
from musubi.causal_vae.facts import LATENTS_MEAN, LATENTS_STD, VaeFacts
from musubi.testing.checkpoints import tiny_wan
from musubi.weights.checkpoint import open_checkpoint


def test_the_vae_is_read_layer_by_layer(tmp_path: Path) -> None:
    path = tiny_wan(tmp_path).weight("vae").resolve()

    with open_checkpoint(path) as checkpoint:
        facts = VaeFacts.of(describe(checkpoint).shapes)

    assert facts == VaeFacts(
        base_dim=4,
        z_dim=16,
        dim_mult=(1, 2, 4, 4),
        num_res_blocks=2,
        temporal_downsample=(False, True, True),
        latents_mean=LATENTS_MEAN,
        latents_std=LATENTS_STD,
    )
