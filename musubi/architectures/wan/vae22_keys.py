"""Original names of the Wan 2.2 VAE <-> diffusers' names."""

from __future__ import annotations

from musubi.causal_vae.keys import ends_and_middle, residual
from musubi.keymap import KeyMap, Rename


def vae22_keys(*, num_res_blocks: int = 2) -> KeyMap:
    """Return the names of the Wan 2.2 VAE: stages of blocks, whose last member resamples."""
    rules = ends_and_middle()
    for side, original, library, resampler, blocks in (
        ("encoder", "downsamples", "down_blocks", "downsampler", num_res_blocks),
        ("decoder", "upsamples", "up_blocks", "upsampler", num_res_blocks + 1),
    ):
        stage, stages = f"{side}.{original}.{{}}", f"{side}.{library}.{{}}"
        rules.append(Rename(f"{stage}.{original}.{blocks}", f"{stages}.{resampler}"))
        rules += residual(f"{stage}.{original}.{{}}", f"{stages}.resnets.{{}}")
    return KeyMap(tuple(rules))
