"""The sizes of Wan's networks, from a checkpoint's shapes; what shapes cannot tell, from its metadata or config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import attrs

from musubi.architectures.wan.detect import Description
from musubi.core.errors import Issue, WeightsError
from musubi.weights.naming import count_after

if TYPE_CHECKING:
    from musubi.architectures.wan.tasks import Form, Published
    from musubi.weights.checkpoint import Checkpoint

HEAD_WIDTH = 128
"""Channels of an attention head in every published Wan transformer."""

CLIP_WIDTH = 1280
"""Channels of the features of the CLIP that Wan looks at pictures with."""

LATENTS_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENTS_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
"""Mean and standard deviation of the 16 channels of Wan 2.1's latents, as its authors publish them."""


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
class VaeFacts:
    """The sizes of a VAE and the statistics of its latents, the published ones unless the file says otherwise."""

    base_dim: int
    z_dim: int
    dim_mult: tuple[int, ...]
    num_res_blocks: int
    temporal_downsample: tuple[bool, ...]
    latents_mean: tuple[float, ...]
    latents_std: tuple[float, ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint, found: Description) -> Self:
        """Read the sizes from the encoder's flat list of layers."""
        shapes = found.shapes
        base_dim = shapes["encoder.conv1.weight"][0]
        stages: list[list[int]] = [[]]
        temporal: list[bool] = []
        for index in range(count_after(shapes, "encoder.downsamples.")):
            layer = f"encoder.downsamples.{index}"
            if f"{layer}.residual.2.weight" in shapes:
                stages[-1].append(shapes[f"{layer}.residual.2.weight"][0])
                continue
            stages.append([])
            temporal.append(f"{layer}.time_conv.weight" in shapes)
        return cls(
            base_dim=base_dim,
            z_dim=shapes["conv2.weight"][0],
            dim_mult=tuple(stage[0] // base_dim for stage in stages),
            num_res_blocks=len(stages[0]),
            temporal_downsample=tuple(temporal),
            latents_mean=numbers(checkpoint, "latents_mean") or LATENTS_MEAN,
            latents_std=numbers(checkpoint, "latents_std") or LATENTS_STD,
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


def numbers(checkpoint: Checkpoint, name: str) -> tuple[float, ...] | None:
    """Return a VAE's ``latents_mean`` or ``latents_std`` if the file's metadata or its config tells it."""
    told = checkpoint.metadata.get(f"wan_vae.{name}")
    values = json.loads(told) if told is not None else _config(checkpoint, "AutoencoderKLWan").get(name)
    return tuple(float(value) for value in values) if isinstance(values, list) else None


def _config(checkpoint: Checkpoint, *classes: str) -> Mapping[str, object]:
    """Return the ``config.json`` beside the file if it is about one of these classes; it may be of something else."""
    return checkpoint.config if checkpoint.config.get("_class_name") in classes else {}
