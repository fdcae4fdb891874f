"""Original names of the causal VAE, in flat lists of layers, <-> diffusers' names."""

from __future__ import annotations

from musubi.keymap import KeyMap, Rename

_RESIDUAL = (
    ("residual.0", "norm1"),
    ("residual.2", "conv1"),
    ("residual.3", "norm2"),
    ("residual.6", "conv2"),
    ("shortcut", "conv_shortcut"),
)


def vae_keys(*, num_stages: int = 4, num_res_blocks: int = 2) -> KeyMap:
    """Return the names of all tensors; the decoder's flat list of layers becomes stages in diffusers."""
    rules = ends_and_middle()
    rules += residual("encoder.downsamples.{}", "encoder.down_blocks.{}")
    rules.append(Rename("encoder.downsamples.{}", "encoder.down_blocks.{}"))
    for stage in range(num_stages):
        first = stage * (num_res_blocks + 2)
        for slot in range(num_res_blocks + 1):
            rules += residual(f"decoder.upsamples.{first + slot}", f"decoder.up_blocks.{stage}.resnets.{slot}")
        rules.append(
            Rename(f"decoder.upsamples.{first + num_res_blocks + 1}", f"decoder.up_blocks.{stage}.upsamplers.0")
        )
    return KeyMap(tuple(rules))


def ends_and_middle() -> list[Rename]:
    """Return the names of the outer layers and the middle ones, which larger VAEs of this kind have, too."""
    rules = [Rename("conv1", "quant_conv"), Rename("conv2", "post_quant_conv")]
    for side in ("encoder", "decoder"):
        rules += [
            Rename(f"{side}.conv1", f"{side}.conv_in"),
            Rename(f"{side}.head.0", f"{side}.norm_out"),
            Rename(f"{side}.head.2", f"{side}.conv_out"),
            *residual(f"{side}.middle.0", f"{side}.mid_block.resnets.0"),
            *residual(f"{side}.middle.2", f"{side}.mid_block.resnets.1"),
            Rename(f"{side}.middle.1", f"{side}.mid_block.attentions.0"),
        ]
    return rules


def residual(original: str, library: str) -> list[Rename]:
    """Return the names inside a residual block."""
    return [Rename(f"{original}.{ours}", f"{library}.{theirs}") for ours, theirs in _RESIDUAL]
