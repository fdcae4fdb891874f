"""Original names of Wan's checkpoints <-> names in diffusers and transformers.

``DIT`` covers all variants of Wan 2.1 and 2.2, image conditioning included; no tensor is split or permuted.
"""

from __future__ import annotations

from musubi.keymap import KeyMap, Rename

_ATTENTION = (
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("o", "to_out.0"),
    ("norm_q", "norm_q"),
    ("norm_k", "norm_k"),
)
_IMAGE = (("k_img", "add_k_proj"), ("v_img", "add_v_proj"), ("norm_k_img", "norm_added_k"))
DIT = KeyMap(
    (
        Rename("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
        Rename("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
        Rename("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
        Rename("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
        Rename("time_projection.1", "condition_embedder.time_proj"),
        Rename("img_emb.proj.0", "condition_embedder.image_embedder.norm1"),
        Rename("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj"),
        Rename("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2"),
        Rename("img_emb.proj.4", "condition_embedder.image_embedder.norm2"),
        Rename("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed"),
        *(Rename(f"blocks.{{}}.self_attn.{ours}", f"blocks.{{}}.attn1.{theirs}") for ours, theirs in _ATTENTION),
        *(Rename(f"blocks.{{}}.cross_attn.{ours}", f"blocks.{{}}.attn2.{theirs}") for ours, theirs in _ATTENTION),
        *(Rename(f"blocks.{{}}.cross_attn.{ours}", f"blocks.{{}}.attn2.{theirs}") for ours, theirs in _IMAGE),
        Rename("blocks.{}.norm3", "blocks.{}.norm2"),
        Rename("blocks.{}.ffn.0", "blocks.{}.ffn.net.0.proj"),
        Rename("blocks.{}.ffn.2", "blocks.{}.ffn.net.2"),
        Rename("blocks.{}.modulation", "blocks.{}.scale_shift_table"),
        Rename("head.head", "proj_out"),
        Rename("head.modulation", "scale_shift_table"),
    )
)

UMT5 = KeyMap(
    (
        Rename("token_embedding", "shared"),
        *(
            Rename(f"blocks.{{}}.attn.{name}", f"encoder.block.{{}}.layer.0.SelfAttention.{name}")
            for name in ("q", "k", "v", "o")
        ),
        Rename("blocks.{}.pos_embedding.embedding", "encoder.block.{}.layer.0.SelfAttention.relative_attention_bias"),
        Rename("blocks.{}.norm1", "encoder.block.{}.layer.0.layer_norm"),
        Rename("blocks.{}.norm2", "encoder.block.{}.layer.1.layer_norm"),
        Rename("blocks.{}.ffn.gate.0", "encoder.block.{}.layer.1.DenseReluDense.wi_0"),
        Rename("blocks.{}.ffn.fc1", "encoder.block.{}.layer.1.DenseReluDense.wi_1"),
        Rename("blocks.{}.ffn.fc2", "encoder.block.{}.layer.1.DenseReluDense.wo"),
        Rename("norm", "encoder.final_layer_norm"),
    )
)

TEXT_ENCODER = KeyMap(tuple(Rename(r.original, tuple(f"encoder.{name}" for name in r.library)) for r in UMT5.rules))
"""``UMT5`` as seen from ``TextEncoder``, which holds the encoder beside its tokenizer."""
