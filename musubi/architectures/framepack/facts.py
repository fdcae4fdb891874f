"""The sizes of a FramePack transformer, from a checkpoint's names and shapes; no tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import attrs

from musubi.core.errors import Issue, WeightsError
from musubi.weights.axes import rope_axes
from musubi.weights.naming import PREFIXES, count_after, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

AXES = (16, 56, 56)
"""Channels of an attention head that tell frame, row and column in the published models."""

_AXES_KEY, _CONFIG_CLASS = "framepack.rope_axes_dim", r"HunyuanVideo.*"

PATCH = (1, 2, 2)
"""Latent cells (frames, height, width) that make one token, of the frames to predict and of the nearest history."""

_SIGNS = ("clean_x_embedder.proj_4x.weight", "image_projection.up.weight")
_REFINER = "context_embedder.token_refiner.refiner_blocks."
_OTHERS = (
    ("context_embedder.token_refiner.", "a HunyuanVideo transformer in diffusers' layout"),
    ("txt_in.individual_token_refiner.", "a HunyuanVideo transformer"),
    ("double_blocks.0.img_attn.qkv.", "a FLUX transformer"),
    ("context_embedder.weight", "a FLUX transformer"),
    ("transformer_blocks.0.img_mod.", "a Qwen-Image transformer"),
    ("patch_embedding.", "a Wan transformer"),
)


@attrs.frozen(kw_only=True)
class DitFacts:
    """The sizes of a transformer; the defaults are the published models'."""

    dim: int = 3072
    head_dim: int = 128
    mlp_dim: int = 12288
    num_double: int = 20
    num_single: int = 40
    num_refiner: int = 2
    in_channels: int = 16
    out_channels: int = 16
    text_dim: int = 4096
    pooled_dim: int = 768
    image_dim: int = 1152
    guided: bool = True
    """Whether the distilled guidance is an input."""

    axes: tuple[int, int, int] = AXES

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Read the sizes.

        FramePack and FramePack-F1 have the same names and shapes: which one it is, is the user's word.

        Raises:
            WeightsError: It is another model, which the message names where it is a known one, or is incomplete.
        """
        shapes = {strip(name, PREFIXES): checkpoint.shape(name) for name in checkpoint.names()}
        _refuse_others(shapes, checkpoint)
        try:
            dim, in_channels = shapes["x_embedder.proj.weight"][:2]
            (head_dim,) = shapes["transformer_blocks.0.attn.norm_q.weight"]
            return cls(
                dim=dim,
                head_dim=head_dim,
                mlp_dim=shapes["transformer_blocks.0.ff.net.0.proj.weight"][0],
                num_double=count_after(shapes, "transformer_blocks."),
                num_single=count_after(shapes, "single_transformer_blocks."),
                num_refiner=count_after(shapes, _REFINER),
                in_channels=in_channels,
                out_channels=shapes["proj_out.weight"][0] // 4,
                text_dim=shapes["context_embedder.proj_in.weight"][1],
                pooled_dim=shapes["time_text_embed.text_embedder.linear_1.weight"][1],
                image_dim=shapes["image_projection.up.weight"][1],
                guided="time_text_embed.guidance_embedder.linear_1.weight" in shapes,
                axes=rope_axes(checkpoint, head_dim, key=_AXES_KEY, config_class=_CONFIG_CLASS, published=AXES),
            )
        except KeyError as error:
            raise _refused(checkpoint, f"lacks {error}: its sizes cannot be told", "download it again") from error


def _refuse_others(shapes: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint) -> None:
    if shapes.keys() >= set(_SIGNS):
        return
    other = next((what for sign, what in _OTHERS if any(name.startswith(sign) for name in shapes)), None)
    raise _refused(checkpoint, f"is {other or 'no FramePack transformer'}, not FramePack", "choose it with dit=...")


def _refused(checkpoint: Checkpoint, message: str, hint: str) -> WeightsError:
    return WeightsError("wrong weights for 'dit'", [Issue(checkpoint.label, message, hint)])
