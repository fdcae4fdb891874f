"""The sizes of FLUX.1's text encoders, from a checkpoint's shapes; what shapes cannot tell, from metadata or config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import attrs

from musubi.architecture import Component, Layout
from musubi.core.errors import Issue, WeightsError
from musubi.keymap import KeyMap, Rename
from musubi.weights.naming import PREFIXES, count_after, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

T5_TOKENS = 512
"""Tokens of a prompt that T5 reads; shorter ones are filled up, and what fills them counts."""

T5_PREFIXES = (*PREFIXES, "text_encoders.t5xxl.transformer.")
CLIP_PREFIXES = (*PREFIXES, "text_encoders.clip_l.transformer.text_model.", "text_model.")
CLIP_UNUSED = (r"(visual_projection|text_projection)\.weight", "logit_scale", r".*position_ids", r"vision_model\..*")
T5_UNUSED = ("spiece_model", r"decoder\..*", r"lm_head\..*")

T5 = Component(
    name="t5",
    role="text",
    layout=Layout(
        blocks=("encoder.encoder.block",),
        count=24,
        adapters=(),
        quantise=(r"encoder\.block\.\d+\.layer\.(0\.SelfAttention\.(q|k|v|o)|1\.DenseReluDense\.(wi_0|wi_1|wo))",),
    ),
    keys=KeyMap((Rename("encoder", "encoder.encoder"), Rename("shared", "encoder.shared"))),
    tables=("encoder.shared",),
)
"""What memory policies may know of T5: its blocks; its embedding, position biases and norms stay as they are."""

_T5_SIGN = "encoder.block.0.layer.0.SelfAttention.q.weight"
_CLIP_SIGN = "encoder.layers.0.self_attn.q_proj.weight"
_OTHERS = (
    ("visual.", "a vision-language model"),
    ("vision_model.", "a CLIP image encoder"),
    ("model.layers.", "a language model"),
    ("double_blocks.", "a transformer"),
    ("encoder.down", "a VAE"),
)
_HEAD_DIM = 64
"""Channels of an attention head in CLIP-L."""


@attrs.frozen(kw_only=True)
class T5Facts:
    """The sizes of a T5 encoder."""

    vocabulary: int
    dim: int
    ffn_dim: int
    num_heads: int
    head_dim: int
    num_layers: int
    num_buckets: int
    embedding: str
    """What the file calls the embedding, which it may hold under two names."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Read the sizes; the bias table has one column for each head.

        Raises:
            WeightsError: It is another model, or incomplete.
        """
        shapes = _shapes(checkpoint, T5_PREFIXES)
        if _T5_SIGN not in shapes:
            what = "a CLIP text encoder" if _CLIP_SIGN in _shapes(checkpoint, CLIP_PREFIXES) else _other(shapes)
            raise _refused(checkpoint, "t5", f"is {what}, not T5-XXL")
        if "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight" in shapes:
            raise _refused(checkpoint, "t5", "is umT5, as Wan has it, not T5-XXL")
        embedding = "shared.weight" if "shared.weight" in shapes else "encoder.embed_tokens.weight"
        attention = "encoder.block.0.layer.0.SelfAttention"
        try:
            vocabulary, dim = shapes[embedding]
            num_buckets, num_heads = shapes[f"{attention}.relative_attention_bias.weight"]
            return cls(
                vocabulary=vocabulary,
                dim=dim,
                ffn_dim=shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0],
                num_heads=num_heads,
                head_dim=shapes[f"{attention}.q.weight"][0] // num_heads,
                num_layers=count_after(shapes, "encoder.block."),
                num_buckets=num_buckets,
                embedding=embedding,
            )
        except KeyError as error:
            raise _refused(checkpoint, "t5", f"lacks {error}: its sizes cannot be told") from error


@attrs.frozen(kw_only=True)
class ClipFacts:
    """The sizes of a CLIP text encoder."""

    vocabulary: int
    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    num_tokens: int

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Read the sizes.

        Raises:
            WeightsError: It is another model, or incomplete, or the number of heads cannot be told.
        """
        shapes = _shapes(checkpoint, CLIP_PREFIXES)
        if _CLIP_SIGN not in shapes or "embeddings.token_embedding.weight" not in shapes:
            what = "a T5 encoder" if _T5_SIGN in shapes else _other(shapes)
            raise _refused(checkpoint, "clip_l", f"is {what}, not CLIP-L's text encoder")
        try:
            vocabulary, dim = shapes["embeddings.token_embedding.weight"]
            return cls(
                vocabulary=vocabulary,
                dim=dim,
                ffn_dim=shapes["encoder.layers.0.mlp.fc1.weight"][0],
                num_heads=_clip_heads(checkpoint, dim),
                num_layers=count_after(shapes, "encoder.layers."),
                num_tokens=shapes["embeddings.position_embedding.weight"][0],
            )
        except KeyError as error:
            raise _refused(checkpoint, "clip_l", f"lacks {error}: its sizes cannot be told") from error


def _clip_heads(checkpoint: Checkpoint, dim: int) -> int:
    """Return the heads that the file's metadata or config names, else CLIP-L's width of a head decides."""
    config = checkpoint.config if checkpoint.config.get("model_type") in {"clip_text_model", "clip"} else {}
    for told in (checkpoint.metadata.get("clip_l.num_heads"), config.get("num_attention_heads")):
        if told is not None and str(told).isdigit() and int(str(told)) > 0 and dim % int(str(told)) == 0:
            return int(str(told))
    if dim % _HEAD_DIM == 0:
        return dim // _HEAD_DIM
    hint = "write it to the safetensors metadata as clip_l.num_heads"
    problem = Issue(checkpoint.label, f"does not tell how many heads share the width of {dim}", hint)
    raise WeightsError("unknown number of attention heads", [problem])


def _shapes(checkpoint: Checkpoint, prefixes: tuple[str, ...]) -> Mapping[str, tuple[int, ...]]:
    return {strip(name, prefixes): checkpoint.shape(name) for name in checkpoint.names()}


def _other(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return next((what for sign, what in _OTHERS if any(name.startswith(sign) for name in shapes)), "something else")


def _refused(checkpoint: Checkpoint, component: str, message: str) -> WeightsError:
    return WeightsError(
        f"wrong weights for {component!r}", [Issue(checkpoint.label, message, f"choose it with {component}=...")]
    )
