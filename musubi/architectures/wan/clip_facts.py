"""The sizes of a CLIP image encoder, from a checkpoint's shapes."""

from __future__ import annotations

from math import isqrt
from typing import TYPE_CHECKING, Self

import attrs

from musubi.architectures.wan.detect import Description
from musubi.core.errors import Issue, WeightsError
from musubi.weights.naming import count_after

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

_HEAD_WIDTH = 80
"""Channels of an attention head in ViT-H."""


@attrs.frozen(kw_only=True)
class ClipFacts:
    """The sizes of a CLIP image encoder; ``num_layers`` are all that the file has."""

    width: int
    ffn_width: int
    num_heads: int
    num_layers: int
    image_size: int
    patch: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, found: Description) -> Self:
        """Read the sizes; raises ``WeightsError`` if the number of heads cannot be told."""
        shapes = found.shapes
        width, _, patch, _ = shapes["visual.patch_embedding.weight"]
        return cls(
            width=width,
            ffn_width=shapes["visual.transformer.0.mlp.0.weight"][0],
            num_heads=_heads(checkpoint, width),
            num_layers=count_after(shapes, "visual.transformer."),
            image_size=isqrt(shapes["visual.pos_embedding"][-2] - 1) * patch,
            patch=patch,
        )


def _heads(checkpoint: Checkpoint, width: int) -> int:
    """Return the heads that the file's metadata or config names, else ViT-H's width of a head decides."""
    config = checkpoint.config if checkpoint.config.get("model_type") == "clip_vision_model" else {}
    for told in (checkpoint.metadata.get("wan_clip.num_heads"), config.get("num_attention_heads")):
        if told is not None and str(told).isdigit() and int(str(told)) > 0 and width % int(str(told)) == 0:
            return int(str(told))
    if width % _HEAD_WIDTH == 0:
        return width // _HEAD_WIDTH
    hint = "write it to the safetensors metadata as wan_clip.num_heads"
    problem = Issue(checkpoint.label, f"does not tell how many heads share the width of {width}", hint)
    raise WeightsError("unknown number of attention heads", [problem])
