"""The sizes of a Qwen2.5-VL, from a checkpoint's shapes; what shapes cannot tell, from its metadata or config."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isqrt
from typing import TYPE_CHECKING, Any, Self, cast

import attrs

from musubi.architecture import Component, Layout
from musubi.architectures.qwen_image.vl_keys import NEWER, TEXT_ENCODER, VISION_LANGUAGE
from musubi.core.errors import Issue, WeightsError
from musubi.weights.naming import PREFIXES, count_after, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

COMPONENT = Component(
    name="text_encoder",
    role="text",
    layout=Layout(
        blocks=("encoder.language_model.layers",),
        count=28,
        adapters=(),
        quantise=(r"model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)",),
    ),
    keys=TEXT_ENCODER,
    tables=("encoder.language_model.embed_tokens",),
)
"""What memory policies may know of the language model: its blocks; the vision side is small and stays as it is."""

METADATA = "qwen2_5_vl"
"""Where a file's metadata may tell what its shapes do not: a JSON object with the fields of ``Untold``."""

_SIGN = "visual.merger.ln_q.weight"
_OTHERS = (
    (".SelfAttention.q.weight", "a T5 encoder"),
    ("visual.merger.norm.weight", "a Qwen3-VL"),
    ("visual.merger.mlp.0.weight", "a Qwen2-VL"),
    ("text_model.embeddings.", "a CLIP text encoder"),
    ("model.layers.0.self_attn.q_proj.bias", "a Qwen language model without a vision side"),
    ("model.layers.0.self_attn.q_proj.weight", "a Llama, Gemma or other language model"),
    ("transformer_blocks.", "a transformer of a diffusion model"),
    ("double_blocks.", "a transformer of a diffusion model"),
)


def _numbers(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


@attrs.frozen(kw_only=True)
class Untold:
    """What shapes do not tell; the defaults are the published model's."""

    head_dim: int = 128
    mrope_section: tuple[int, ...] = attrs.field(default=(16, 24, 24), converter=_numbers)
    vision_heads: int = 16
    window_size: int = 112
    fullatt_block_indexes: tuple[int, ...] = attrs.field(default=(7, 15, 23, 31), converter=_numbers)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Read what the file's metadata or the config beside it tells."""
        told = checkpoint.metadata.get(METADATA)
        if told is not None:
            return cls(**json.loads(told))
        config = checkpoint.config
        if config.get("model_type") != "qwen2_5_vl":
            return cls()
        text = cast(Mapping[str, Any], config.get("text_config") or config)
        vision = cast(Mapping[str, Any], config.get("vision_config") or {})
        told_rope = text.get("rope_parameters") or text.get("rope_scaling") or config.get("rope_scaling") or {}
        rope = cast(Mapping[str, Any], told_rope)
        usual = cls()
        return cls(
            head_dim=int(text["hidden_size"]) // int(text["num_attention_heads"]),
            mrope_section=rope.get("mrope_section", usual.mrope_section),
            vision_heads=int(vision.get("num_heads", usual.vision_heads)),
            window_size=int(vision.get("window_size", usual.window_size)),
            fullatt_block_indexes=vision.get("fullatt_block_indexes", usual.fullatt_block_indexes),
        )


@attrs.frozen(kw_only=True)
class VisionLanguageFacts:
    """The sizes of the language model, and of the vision side with its square patches."""

    vocabulary: int
    dim: int
    ffn_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vision_dim: int
    vision_ffn_dim: int
    vision_depth: int
    patch: int
    temporal_patch: int
    merge: int
    untold: Untold = attrs.field(factory=Untold)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Read the sizes.

        Raises:
            WeightsError: It is another model, which the message names where it is a known one, or its sizes cannot be
                told.
        """
        shapes = expect_vision_language(checkpoint)
        try:
            untold = Untold.of(checkpoint)
            facts = cls._read(shapes, untold)
        except KeyError as error:
            raise _refused(checkpoint, f"lacks {error}: its sizes cannot be told", "download it again") from error
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise _refused(checkpoint, "has a description that makes no sense", "download it again") from error
        if not facts.makes_sense:
            message = "does not tell how its heads are made up, and they are not the published model's"
            hint = f"keep its config.json beside it, or write it to the metadata as {METADATA}"
            raise _refused(checkpoint, message, hint)
        return facts

    @property
    def makes_sense(self) -> bool:
        """Whether widths are made up of whole heads and blocks."""
        untold = self.untold
        whole = self.num_heads * untold.head_dim == self.dim and self.num_kv_heads > 0
        turned = 2 * sum(untold.mrope_section) == untold.head_dim and len(untold.mrope_section) == 3
        seen = self.vision_dim % untold.vision_heads == 0 and max(untold.fullatt_block_indexes) < self.vision_depth
        return whole and turned and seen

    @classmethod
    def _read(cls, shapes: Mapping[str, tuple[int, ...]], untold: Untold) -> Self:
        vocabulary, dim = shapes["model.embed_tokens.weight"]
        vision_dim, _, temporal, patch, _ = shapes["visual.patch_embed.proj.weight"]
        return cls(
            vocabulary=vocabulary,
            dim=dim,
            ffn_dim=shapes["model.layers.0.mlp.gate_proj.weight"][0],
            num_layers=count_after(shapes, "model.layers."),
            num_heads=shapes["model.layers.0.self_attn.q_proj.bias"][0] // untold.head_dim,
            num_kv_heads=shapes["model.layers.0.self_attn.k_proj.bias"][0] // untold.head_dim,
            vision_dim=vision_dim,
            vision_ffn_dim=shapes["visual.blocks.0.mlp.gate_proj.bias"][0],
            vision_depth=count_after(shapes, "visual.blocks."),
            patch=patch,
            temporal_patch=temporal,
            merge=isqrt(shapes["visual.merger.mlp.0.bias"][0] // vision_dim),
            untold=untold,
        )


def prefixes_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return what names begin with beside what ``VISION_LANGUAGE`` knows."""
    return ("model.",) if any(name.startswith(NEWER) for name in checkpoint.names()) else PREFIXES


def expect_vision_language(checkpoint: Checkpoint) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes by original name, if the file holds a Qwen2.5-VL.

    Raises:
        WeightsError: It is something else, which the message names.
    """
    prefixes = prefixes_of(checkpoint)
    short = {strip(name, prefixes): checkpoint.shape(name) for name in checkpoint.names()}
    shapes = {VISION_LANGUAGE.to_original(name)[0]: shape for name, shape in short.items()}
    if _SIGN not in shapes:
        what = next((what for sign, what in _OTHERS if any(sign in name for name in shapes)), "no language model")
        raise _refused(checkpoint, f"is {what}, not Qwen2.5-VL", "choose it with text_encoder=...")
    return shapes


def _refused(checkpoint: Checkpoint, message: str, hint: str) -> WeightsError:
    return WeightsError("wrong weights for 'text_encoder'", [Issue(checkpoint.label, message, hint)])
