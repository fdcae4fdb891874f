"""Original names of HunyuanVideo's checkpoints <-> diffusers' names.

The original fuses what has a common input: query, key and value, and in single blocks the inner layer of the
feed-forward, too; diffusers has one Linear for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from musubi.keymap import OriginalOrder, Rename

_Names = Mapping[str, str | tuple[str, ...]]

_REFINER: _Names = MappingProxyType(
    {
        "norm1": "norm1",
        "self_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "self_attn_proj": "attn.to_out.0",
        "norm2": "norm2",
        "mlp.fc1": "ff.net.0.proj",
        "mlp.fc2": "ff.net.2",
        "adaLN_modulation.1": "norm_out.linear",
    }
)
_IMAGE: _Names = MappingProxyType(
    {
        "img_mod.linear": "norm1.linear",
        "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "img_attn_q_norm": "attn.norm_q",
        "img_attn_k_norm": "attn.norm_k",
        "img_attn_proj": "attn.to_out.0",
        "img_mlp.fc1": "ff.net.0.proj",
        "img_mlp.fc2": "ff.net.2",
    }
)
_TEXT: _Names = MappingProxyType(
    {
        "txt_mod.linear": "norm1_context.linear",
        "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "txt_attn_q_norm": "attn.norm_added_q",
        "txt_attn_k_norm": "attn.norm_added_k",
        "txt_attn_proj": "attn.to_add_out",
        "txt_mlp.fc1": "ff_context.net.0.proj",
        "txt_mlp.fc2": "ff_context.net.2",
    }
)
_SINGLE: _Names = MappingProxyType(
    {
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        "linear2": "proj_out",
        "q_norm": "attn.norm_q",
        "k_norm": "attn.norm_k",
        "modulation.linear": "norm.linear",
    }
)


def _blocks(original: str, library: str, names: _Names) -> list[Rename]:
    return [
        Rename(
            f"{original}.{{}}.{ours}",
            [f"{library}.{{}}.{part}" for part in ((theirs,) if isinstance(theirs, str) else theirs)],
        )
        for ours, theirs in names.items()
    ]


def _embedder(original: str, library: str) -> list[Rename]:
    """Return the rules of two Linears with an activation between them."""
    layers = ("in_layer", "out_layer") if original == "vector_in" else ("mlp.0", "mlp.2")
    return [Rename(f"{original}.{layer}", f"{library}.linear_{i}") for i, layer in enumerate(layers, start=1)]


_REFINED, _CONDITIONS = "context_embedder.time_text_embed", "time_text_embed"

DIT = OriginalOrder(
    (
        Rename("img_in", "x_embedder"),
        Rename("txt_in.input_embedder", "context_embedder.proj_in"),
        *_embedder("txt_in.t_embedder", f"{_REFINED}.timestep_embedder"),
        Rename("txt_in.c_embedder", f"{_REFINED}.text_embedder"),
        *_blocks("txt_in.individual_token_refiner.blocks", "context_embedder.token_refiner.refiner_blocks", _REFINER),
        *_embedder("time_in", f"{_CONDITIONS}.timestep_embedder"),
        *_embedder("vector_in", f"{_CONDITIONS}.text_embedder"),
        *_embedder("guidance_in", f"{_CONDITIONS}.guidance_embedder"),
        *_blocks("double_blocks", "transformer_blocks", {**_IMAGE, **_TEXT}),
        *_blocks("single_blocks", "single_transformer_blocks", _SINGLE),
        Rename("final_layer.linear", "proj_out"),
        Rename("final_layer.adaLN_modulation.1", "norm_out.linear"),
    )
)
"""All tensors of a HunyuanVideo transformer.

Files in diffusers' layout have the two halves of ``norm_out.linear`` (shift and scale) the other way round; in memory
they stand as in the original (``transformer.py``).
"""
