"""The sizes of Qwen-Image's VAE, from a checkpoint's names and shapes; no tensor is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musubi.causal_vae.facts import Told, VaeFacts
from musubi.causal_vae.keys import vae_keys
from musubi.core.errors import Issue, WeightsError
from musubi.weights.naming import PREFIXES, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

TOLD = Told(key="qwen_image_vae", cls="AutoencoderKLQwenImage")
"""Where files tell the statistics of latents."""

_ORIGINAL, _LIBRARY = "decoder.middle.0.residual.0.gamma", "decoder.mid_block.resnets.0.norm1.gamma"
_CHANNELS = 3
_OTHERS = (
    ("encoder.down.0.block.", "an image VAE (FLUX or Stable Diffusion)"),
    ("encoder.down_blocks.0.resnets.", "another VAE"),
    ("transformer_blocks.", "a transformer"),
    ("visual.", "a vision-language model"),
)


def vae_facts(checkpoint: Checkpoint) -> VaeFacts:
    """Read the sizes of the VAE in a file of either layout.

    Raises:
        WeightsError: It is another model, which the message names where it is a known one, or is incomplete.
    """
    shapes = {strip(name, PREFIXES): checkpoint.shape(name) for name in checkpoint.names()}
    if _LIBRARY in shapes:
        keys = vae_keys()
        shapes = {keys.to_original(name)[0]: shape for name, shape in shapes.items()}
    if _ORIGINAL not in shapes:
        what = next((what for sign, what in _OTHERS if any(name.startswith(sign) for name in shapes)), "something else")
        raise _refused(checkpoint, f"is {what}, not Qwen-Image's VAE", "choose it with vae=...")
    try:
        facts = VaeFacts.of(shapes, mean=TOLD.mean(checkpoint), std=TOLD.std(checkpoint))
    except (KeyError, IndexError, ValueError) as error:
        hint = "download it again, or give another file"
        raise _refused(checkpoint, "lacks tensors: its sizes cannot be told", hint) from error
    if facts.in_channels != _CHANNELS:
        what = "is the VAE of Qwen-Image-Layered" if facts.in_channels == 4 else "is of pictures of other channels"
        raise _refused(checkpoint, f"{what}, not Qwen-Image's VAE", "choose it with vae=...")
    return facts


def _refused(checkpoint: Checkpoint, message: str, hint: str) -> WeightsError:
    return WeightsError("wrong weights for 'vae'", [Issue(checkpoint.label, message, hint)])
