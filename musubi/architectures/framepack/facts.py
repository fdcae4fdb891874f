"""The sizes of a FramePack transformer, from a checkpoint's names and shapes; no tensor is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import attrs

from musubi.core.errors import Issue, WeightsError
from musubi.weights.naming import PREFIXES, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

AXES = (16, 56, 56)
"""Channels of an attention head that tell frame, row and column in the published models."""

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
                num_double=_count(shapes, "transformer_blocks."),
                num_single=_count(shapes, "single_transformer_blocks."),
                num_refiner=_count(shapes, _REFINER),
                in_channels=in_channels,
                out_channels=shapes["proj_out.weight"][0] // 4,
                text_dim=shapes["context_embedder.proj_in.weight"][1],
                pooled_dim=shapes["time_text_embed.text_embedder.linear_1.weight"][1],
                image_dim=shapes["image_projection.up.weight"][1],
                guided="time_text_embed.guidance_embedder.linear_1.weight" in shapes,
                axes=_axes(checkpoint, head_dim),
            )
        except KeyError as error:
            raise _refused(checkpoint, f"lacks {error}: its sizes cannot be told", "download it again") from error


def _refuse_others(shapes: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint) -> None:
    if shapes.keys() >= set(_SIGNS):
        return
    other = next((what for sign, what in _OTHERS if any(name.startswith(sign) for name in shapes)), None)
    raise _refused(checkpoint, f"is {other or 'no FramePack transformer'}, not FramePack", "choose it with dit=...")


def _count(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    return len({name[len(prefix) :].split(".", 1)[0] for name in shapes if name.startswith(prefix)})


def _axes(checkpoint: Checkpoint, head_dim: int) -> tuple[int, int, int]:
    """Return the channels of a head by axis: the file's metadata or config decide, else the published ones."""
    match _told_axes(checkpoint):
        case [int(frame), int(row), int(column)] if frame + row + column == head_dim:
            return frame, row, column
        case _:
            hint = "write them to the safetensors metadata as framepack.rope_axes_dim"
            raise _refused(checkpoint, f"does not tell how {head_dim} channels of a head are dealt to 3 axes", hint)


def _told_axes(checkpoint: Checkpoint) -> object:
    if "framepack.rope_axes_dim" in checkpoint.metadata:
        with suppress(ValueError):
            return json.loads(checkpoint.metadata["framepack.rope_axes_dim"])
        return None
    ours = str(checkpoint.config.get("_class_name", "")).startswith("HunyuanVideo")
    return checkpoint.config.get("rope_axes_dim", AXES) if ours else AXES


def _refused(checkpoint: Checkpoint, message: str, hint: str) -> WeightsError:
    return WeightsError("wrong weights for 'dit'", [Issue(checkpoint.label, message, hint)])
