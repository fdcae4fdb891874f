"""The sizes of FLUX.1's VAE, from a checkpoint's names and shapes; no tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import attrs

from musubi.architectures.flux_kontext.vae_keys import vae_keys
from musubi.core.errors import Issue, WeightsError
from musubi.weights.naming import PREFIXES, count_after, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

SCALE, SHIFT = 0.3611, 0.1159
"""Latents are (mean - SHIFT) * SCALE of what the VAE encodes."""

FILE_PREFIXES = (*PREFIXES, "first_stage_model.", "vae.")

_ORIGINAL, _LIBRARY = "encoder.down.0.block.0.conv1.weight", "encoder.down_blocks.0.resnets.0.conv1.weight"
_OTHERS = (
    ("quant_conv.", "a Stable Diffusion VAE"),
    ("bn.running_mean", "the VAE of FLUX.2"),
    ("encoder.downsamples.", "a video VAE (Wan or Qwen-Image)"),
    ("encoder.down_blocks.0.norm1.", "a video VAE (Wan or Qwen-Image)"),
    ("double_blocks.", "a transformer"),
    ("transformer_blocks.", "a transformer"),
)


@attrs.frozen(kw_only=True)
class VaeFacts:
    """The sizes of a VAE, and whether the file has the original names."""

    channels: tuple[int, ...]
    num_res_blocks: int
    latent_channels: int
    original_names: bool

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Read the sizes of the VAE in a file of either layout.

        Raises:
            WeightsError: It is another model, which the message names where it is a known one, or is incomplete.
        """
        short = {strip(name, FILE_PREFIXES): checkpoint.shape(name) for name in checkpoint.names()}
        other = next((what for sign, what in _OTHERS if any(name.startswith(sign) for name in short)), None)
        if other is not None or not {_ORIGINAL, _LIBRARY} & short.keys():
            message = f"is {other or 'something else'}, not FLUX.1's VAE"
            raise _refused(checkpoint, message, "choose it with vae=...")
        try:
            return cls._read(short, original_names=_ORIGINAL in short)
        except KeyError as error:
            raise _refused(checkpoint, f"lacks {error}: its sizes cannot be told", "download it again") from error

    @classmethod
    def _read(cls, short: Mapping[str, tuple[int, ...]], *, original_names: bool) -> Self:
        keys = vae_keys()  # the encoder's names do not depend on the number of levels
        encoder = {name: shape for name, shape in short.items() if name.startswith("encoder.")}
        shapes = encoder if original_names else {keys.to_original(name)[0]: shape for name, shape in encoder.items()}
        levels = range(count_after(shapes, "encoder.down."))
        return cls(
            channels=tuple(shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in levels),
            num_res_blocks=count_after(shapes, "encoder.down.0.block."),
            latent_channels=shapes["encoder.conv_out.weight"][0] // 2,
            original_names=original_names,
        )


def _refused(checkpoint: Checkpoint, message: str, hint: str) -> WeightsError:
    return WeightsError("wrong weights for 'vae'", [Issue(checkpoint.label, message, hint)])
