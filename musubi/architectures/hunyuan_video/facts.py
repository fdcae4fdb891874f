"""The sizes of a HunyuanVideo transformer, from a checkpoint's names and shapes; no tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import attrs

from musubi.architectures.hunyuan_video.keys import DIT
from musubi.core.errors import Issue, WeightsError
from musubi.weights.axes import rope_axes
from musubi.weights.naming import PREFIXES, count_after, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

Shapes = Mapping[str, tuple[int, ...]]
"""Original name -> shape; of a fused module split by diffusers, the shape of one part."""

AXES = (16, 56, 56)
"""Channels of an attention head that tell frame, row and column in the published models."""

_AXES_KEY, _CONFIG_CLASS = "hunyuan_video.rope_axes_dim", r"HunyuanVideoTransformer3DModel"

PATCH = (1, 2, 2)
"""Latent cells (frames, height, width) that make one token."""

_REFINER = "txt_in.individual_token_refiner.blocks."
_ORIGINAL = (f"{_REFINER}0.norm1.weight", "vector_in.in_layer.weight")
_LIBRARY = tuple(part.name for name in _ORIGINAL for part in DIT.to_library(name))
_OTHERS = (
    ("clean_x_embedder.", "a FramePack transformer"),
    ("byt5_in.", "a HunyuanVideo 1.5 transformer"),
    ("context_embedder_2.", "a HunyuanVideo 1.5 transformer"),
    ("double_blocks.0.img_attn.qkv.", "a FLUX transformer"),
    ("context_embedder.weight", "a FLUX transformer"),
    ("transformer_blocks.0.img_mod.", "a Qwen-Image transformer"),
    ("patch_embedding.", "a Wan transformer"),
)
_INPUTS = (16, 32)
_OTHER_INPUTS = {33: "HunyuanVideo-I2V"}


@attrs.frozen(kw_only=True)
class DitFacts:
    """The sizes of a transformer; the defaults are the published text-to-video model's."""

    dim: int = 3072
    head_dim: int = 128
    mlp_dim: int = 12288
    num_double: int = 20
    num_single: int = 40
    num_refiner: int = 2
    in_channels: int = 16
    """16, or 32 where the first frame's latents are an input, too."""

    out_channels: int = 16
    text_dim: int = 4096
    pooled_dim: int = 768
    guided: bool = True
    """Whether the distilled guidance is an input."""

    axes: tuple[int, int, int] = AXES

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Read the sizes.

        Raises:
            WeightsError: It is another model, which the message names where it is a known one, or is incomplete.
        """
        shapes = original_shapes(checkpoint)
        try:
            dim, in_channels, *patch = shapes["img_in.proj.weight"]
            (head_dim,) = shapes["double_blocks.0.img_attn_q_norm.weight"]
            facts = cls(
                dim=dim,
                head_dim=head_dim,
                mlp_dim=shapes["double_blocks.0.img_mlp.fc1.weight"][0],
                num_double=count_after(shapes, "double_blocks."),
                num_single=count_after(shapes, "single_blocks."),
                num_refiner=count_after(shapes, _REFINER),
                in_channels=in_channels,
                out_channels=shapes["final_layer.linear.weight"][0] // 4,
                text_dim=shapes["txt_in.input_embedder.weight"][1],
                pooled_dim=shapes["vector_in.in_layer.weight"][1],
                guided="guidance_in.mlp.0.weight" in shapes,
                axes=rope_axes(checkpoint, head_dim, key=_AXES_KEY, config_class=_CONFIG_CLASS, published=AXES),
            )
        except KeyError as error:
            raise _refused(checkpoint, f"lacks {error}: its sizes cannot be told", "download it again") from error
        if in_channels not in _INPUTS or tuple(patch) != PATCH:
            what = f"a model of {in_channels} input channels in patches of {'x'.join(map(str, patch))}"
            found = _OTHER_INPUTS.get(in_channels, what)
            raise _refused(checkpoint, f"is {found}, not HunyuanVideo or SkyReels V1", "choose it with dit=...")
        return facts


def original_shapes(checkpoint: Checkpoint) -> Shapes:
    """Return the shapes under original names, whichever layout the file has.

    Raises:
        WeightsError: It is no HunyuanVideo transformer.
    """
    shapes = {strip(name, PREFIXES): checkpoint.shape(name) for name in checkpoint.names()}
    other = next((what for sign, what in _OTHERS if any(name.startswith(sign) for name in shapes)), None)
    if other is None and shapes.keys() >= set(_ORIGINAL):
        return shapes
    if other is None and shapes.keys() >= set(_LIBRARY):
        return {DIT.to_original(name)[0]: shape for name, shape in shapes.items()}
    found = other or "no HunyuanVideo transformer"
    raise _refused(checkpoint, f"is {found}, not HunyuanVideo or SkyReels V1", "choose it with dit=...")


def has_library_names(checkpoint: Checkpoint) -> bool:
    """Whether the file is in diffusers' layout."""
    return {strip(name, PREFIXES) for name in checkpoint.names()} >= set(_LIBRARY)


def _refused(checkpoint: Checkpoint, message: str, hint: str) -> WeightsError:
    return WeightsError("wrong weights for 'dit'", [Issue(checkpoint.label, message, hint)])
