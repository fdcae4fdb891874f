"""Original names of FLUX.1's checkpoints <-> diffusers' names.

The original fuses what has a common input: query, key and value, and in single blocks the inner layer of the
feed-forward, too; diffusers has one Linear for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from musubi.keymap import OriginalOrder, Rename

_EMBEDDERS: Mapping[str, str] = MappingProxyType(
    {"time_in": "timestep_embedder", "vector_in": "text_embedder", "guidance_in": "guidance_embedder"}
)
_IMAGE: Mapping[str, str | tuple[str, ...]] = MappingProxyType(
    {
        "img_mod.lin": "norm1.linear",
        "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
        "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
        "img_attn.proj": "attn.to_out.0",
        "img_mlp.0": "ff.net.0.proj",
        "img_mlp.2": "ff.net.2",
    }
)
_TEXT: Mapping[str, str | tuple[str, ...]] = MappingProxyType(
    {
        "txt_mod.lin": "norm1_context.linear",
        "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
        "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
        "txt_attn.proj": "attn.to_add_out",
        "txt_mlp.0": "ff_context.net.0.proj",
        "txt_mlp.2": "ff_context.net.2",
    }
)
_SINGLE: Mapping[str, str | tuple[str, ...]] = MappingProxyType(
    {
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        "linear2": "proj_out",
        "norm.query_norm.scale": "attn.norm_q.weight",
        "norm.key_norm.scale": "attn.norm_k.weight",
        "modulation.lin": "norm.linear",
    }
)


def _blocks(original: str, library: str, names: Mapping[str, str | tuple[str, ...]]) -> list[Rename]:
    return [
        Rename(
            f"{original}.{{}}.{ours}",
            [f"{library}.{{}}.{part}" for part in ((theirs,) if isinstance(theirs, str) else theirs)],
        )
        for ours, theirs in names.items()
    ]


DIT = OriginalOrder(
    (
        Rename("img_in", "x_embedder"),
        *(
            Rename(f"{ours}.{layer}_layer", f"time_text_embed.{theirs}.linear_{number}")
            for ours, theirs in _EMBEDDERS.items()
            for number, layer in enumerate(("in", "out"), start=1)
        ),
        Rename("txt_in", "context_embedder"),
        *_blocks("double_blocks", "transformer_blocks", {**_IMAGE, **_TEXT}),
        *_blocks("single_blocks", "single_transformer_blocks", _SINGLE),
        Rename("final_layer.linear", "proj_out"),
        Rename("final_layer.adaLN_modulation.1", "norm_out.linear"),
    )
)
"""All tensors of a FLUX.1 transformer.

Files in diffusers' layout have the two halves of ``norm_out.linear`` (shift and scale) the other way round; in memory
they stand as in the original (``transformer.py``).
"""
