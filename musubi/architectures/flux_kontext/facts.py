"""The sizes of a FLUX.1 transformer, from a checkpoint's names and shapes; no tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import attrs

from musubi.architectures.flux_kontext.keys import DIT
from musubi.core.errors import Issue, WeightsError
from musubi.weights.axes import rope_axes
from musubi.weights.naming import PREFIXES, count_after, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

Shapes = Mapping[str, tuple[int, ...]]
"""Original name -> shape; of a fused module split by diffusers, the shape of one part."""

AXES = (16, 56, 56)
"""Channels of an attention head that tell index, row and column in every published FLUX.1."""

_AXES_KEY, _CONFIG_CLASS = "flux.axes_dims_rope", r"FluxTransformer2DModel"

_ORIGINAL, _LIBRARY = "double_blocks.0.img_attn.norm.query_norm.scale", "transformer_blocks.0.attn.norm_added_q.weight"
_OTHERS = (
    ("distilled_guidance_layer.", "a Chroma transformer"),
    ("single_stream_modulation.", "a FLUX.2 transformer"),
    ("x_embedder.proj.", "a HunyuanVideo or FramePack transformer"),
    ("transformer_blocks.0.img_mod.", "a Qwen-Image transformer"),
    ("double_blocks.0.img_attn_qkv.", "a HunyuanVideo transformer"),
    ("patch_embedding.", "a Wan transformer"),
)
_OTHER_INPUTS = {128: "FLUX.1 Canny or Depth", 384: "FLUX.1 Fill"}


@attrs.frozen(kw_only=True)
class DitFacts:
    """The sizes of a transformer; the defaults are the published model's."""

    dim: int = 3072
    head_dim: int = 128
    num_double: int = 19
    num_single: int = 38
    in_channels: int = 64
    out_channels: int = 64
    text_dim: int = 4096
    pooled_dim: int = 768
    guided: bool = True
    """Whether the distilled guidance is an input."""

    axes: tuple[int, int, int] = AXES

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Read the sizes.

        FLUX.1 dev and Kontext have the same names and shapes: which one it is, is the user's word.

        Raises:
            WeightsError: It is another model, which the message names where it is a known one, or is incomplete.
        """
        shapes = original_shapes(checkpoint)
        try:
            dim, in_channels = shapes["img_in.weight"]
            (head_dim,) = shapes[_ORIGINAL]
            facts = cls(
                dim=dim,
                head_dim=head_dim,
                num_double=count_after(shapes, "double_blocks."),
                num_single=count_after(shapes, "single_blocks."),
                in_channels=in_channels,
                out_channels=shapes["final_layer.linear.weight"][0],
                text_dim=shapes["txt_in.weight"][1],
                pooled_dim=shapes["vector_in.in_layer.weight"][1],
                guided="guidance_in.in_layer.weight" in shapes,
                axes=rope_axes(checkpoint, head_dim, key=_AXES_KEY, config_class=_CONFIG_CLASS, published=AXES),
            )
        except KeyError as error:
            raise _refused(checkpoint, f"lacks {error}: its sizes cannot be told", "download it again") from error
        if facts.in_channels != facts.out_channels:
            found = _OTHER_INPUTS.get(in_channels, f"a model of {in_channels} input channels")
            raise _refused(checkpoint, f"is {found}, not FLUX.1 Kontext", "choose it with dit=...")
        return facts


def original_shapes(checkpoint: Checkpoint) -> Shapes:
    """Return the shapes under original names, whichever layout the file has.

    Raises:
        WeightsError: It is no FLUX.1 transformer.
    """
    shapes = {strip(name, PREFIXES): checkpoint.shape(name) for name in checkpoint.names()}
    other = next((what for sign, what in _OTHERS if any(name.startswith(sign) for name in shapes)), None)
    if other is None and _ORIGINAL in shapes:
        return shapes
    if other is None and _LIBRARY in shapes:
        return {DIT.to_original(name)[0]: shape for name, shape in shapes.items()}
    raise _refused(checkpoint, f"is {other or 'no FLUX.1 transformer'}, not FLUX.1 Kontext", "choose it with dit=...")


def has_library_names(checkpoint: Checkpoint) -> bool:
    """Whether the file is in diffusers' layout."""
    return _LIBRARY in {strip(name, PREFIXES) for name in checkpoint.names()}


def _refused(checkpoint: Checkpoint, message: str, hint: str) -> WeightsError:
    return WeightsError("wrong weights for 'dit'", [Issue(checkpoint.label, message, hint)])
