"""Original names of FLUX.1's VAE, as Black Forest Labs and ComfyUI ship it, <-> diffusers' names."""

from __future__ import annotations

from collections.abc import Iterator

from musubi.keymap import KeyMap, Rename

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers of the attention in the middle, which the original has as convolutions of one pixel."""


def vae_keys(*, num_levels: int = 4) -> KeyMap:
    """Return the names of all tensors; the decoder's levels stand in the opposite order in diffusers."""
    return KeyMap(
        (
            *_sides(),
            *_blocks("encoder.down.{}", "encoder.down_blocks.{}"),
            Rename("encoder.down.{}.downsample", "encoder.down_blocks.{}.downsamplers.0"),
            *(rule for level in range(num_levels) for rule in _level(level, num_levels - 1 - level)),
        )
    )


def _sides() -> Iterator[Rename]:
    for side in ("encoder", "decoder"):
        yield Rename(f"{side}.norm_out", f"{side}.conv_norm_out")
        yield Rename(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0")
        yield Rename(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1")
        for ours, theirs in zip(("q", "k", "v", "proj_out"), ATTENTION, strict=True):
            yield Rename(f"{side}.mid.attn_1.{ours}", f"{side}.mid_block.attentions.0.{theirs}")
        yield Rename(f"{side}.mid.attn_1.norm", f"{side}.mid_block.attentions.0.group_norm")


def _level(original: int, library: int) -> Iterator[Rename]:
    yield from _blocks(f"decoder.up.{original}", f"decoder.up_blocks.{library}")
    yield Rename(f"decoder.up.{original}.upsample", f"decoder.up_blocks.{library}.upsamplers.0")


def _blocks(original: str, library: str) -> Iterator[Rename]:
    yield Rename(f"{original}.block.{{}}.nin_shortcut", f"{library}.resnets.{{}}.conv_shortcut")
    yield Rename(f"{original}.block", f"{library}.resnets")
