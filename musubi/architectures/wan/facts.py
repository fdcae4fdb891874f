"""The sizes of Wan's networks, from a checkpoint's shapes; what shapes cannot tell, from its metadata or config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import attrs

from musubi.architectures.wan.detect import Description
from musubi.causal_vae.facts import Told
from musubi.core.errors import Issue, WeightsError
from musubi.weights.naming import count_after

if TYPE_CHECKING:
    from musubi.architectures.wan.tasks import Form, Published
    from musubi.weights.checkpoint import Checkpoint

TOLD = Told(key="wan_vae", cls="AutoencoderKLWan")
"""Where files tell the statistics of latents."""

HEAD_WIDTH = 128
"""Channels of an attention head in every published Wan transformer."""

CLIP_WIDTH = 1280
"""Channels of the features of the CLIP that Wan looks at pictures with."""


@attrs.frozen(kw_only=True)
class DitFacts:
    """The sizes of a transformer."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_channels: int
    out_channels: int
    text_dim: int
    freq_dim: int
    patch: tuple[int, int, int]
    image_dim: int | None
    image_tokens: int | None
    """Learned positions of image tokens (FLF2V), None where there are none."""

    image_keys: bool
    """Whether cross-attention has keys and values for image tokens."""

    def has_form(self, form: Form) -> bool:
        """Tell whether a transformer takes and gives what one of this form does; how many tokens is its own."""
        places = (self.image_tokens is None) == (form.positions is None)
        image = self.image_keys == (self.image_dim is not None) == form.image
        return places and image and (self.in_channels, self.out_channels) == (form.inputs, form.outputs)

    @classmethod
    def of(cls, checkpoint: Checkpoint, found: Description) -> Self:
        """Read the sizes; raises ``WeightsError`` if the number of heads cannot be told."""
        shapes = found.shapes
        dim, in_channels, frames, height, width = shapes["patch_embedding.weight"]
        positions = shapes.get("img_emb.emb_pos")
        return cls(
            dim=dim,
            ffn_dim=shapes["blocks.0.ffn.0.weight"][0],
            num_heads=_heads(checkpoint, dim),
            num_layers=count_after(shapes, "blocks."),
            in_channels=in_channels,
            out_channels=shapes["head.head.weight"][0] // (frames * height * width),
            text_dim=shapes["text_embedding.0.weight"][1],
            freq_dim=shapes["time_embedding.0.weight"][1],
            patch=(frames, height, width),
            image_dim=shapes["img_emb.proj.1.weight"][1] if "img_emb.proj.1.weight" in shapes else None,
            image_tokens=positions[1] if positions else None,
            image_keys="blocks.0.cross_attn.k_img.weight" in shapes,
        )


def published_facts(published: Published) -> DitFacts:
    """Return the sizes of a published transformer, without its file."""
    form = published.form
    return DitFacts(
        dim=published.dim,
        ffn_dim=published.ffn_dim,
        num_heads=published.dim // HEAD_WIDTH,
        num_layers=published.num_layers,
        in_channels=form.inputs,
        out_channels=form.outputs,
        text_dim=4096,
        freq_dim=256,
        patch=(1, 2, 2),
        image_dim=CLIP_WIDTH if form.image else None,
        image_tokens=form.positions,
        image_keys=form.image,
    )


@attrs.frozen(kw_only=True)
class TextFacts:
    """The sizes of a umT5 encoder."""

    vocabulary: int
    dim: int
    ffn_dim: int
    num_heads: int
    head_dim: int
    num_layers: int
    num_buckets: int

    @classmethod
    def of(cls, found: Description) -> Self:
        """Read the sizes; the bias table has one column for each head."""
        shapes = found.shapes
        num_buckets, num_heads = shapes["blocks.0.pos_embedding.embedding.weight"]
        vocabulary, dim = shapes.get("token_embedding.weight") or shapes["encoder.embed_tokens.weight"]
        return cls(
            vocabulary=vocabulary,
            dim=dim,
            ffn_dim=shapes["blocks.0.ffn.fc1.weight"][0],
            num_heads=num_heads,
            head_dim=shapes["blocks.0.attn.q.weight"][0] // num_heads,
            num_layers=count_after(shapes, "blocks."),
            num_buckets=num_buckets,
        )


def _heads(checkpoint: Checkpoint, dim: int) -> int:
    """Return the heads that the file's metadata or config names, else the published width of a head decides."""
    config = _config(checkpoint, "WanTransformer3DModel", "WanModel")
    for told in (checkpoint.metadata.get("wan.num_heads"), config.get("num_attention_heads"), config.get("num_heads")):
        if told is not None and str(told).isdigit() and int(str(told)) > 0 and dim % int(str(told)) == 0:
            return int(str(told))
    if dim % HEAD_WIDTH == 0:
        return dim // HEAD_WIDTH
    hint = "write it to the safetensors metadata as wan.num_heads"
    problem = Issue(checkpoint.label, f"does not tell how many heads share the width of {dim}", hint)
    raise WeightsError("unknown number of attention heads", [problem])


def _config(checkpoint: Checkpoint, *classes: str) -> Mapping[str, object]:
    """Return the ``config.json`` beside the file if it is about one of these classes; it may be of something else."""
    return checkpoint.config if checkpoint.config.get("_class_name") in classes else {}
