"""Original names of Wan's CLIP image encoder <-> names in transformers' ``CLIPVisionModel``."""

from __future__ import annotations

from musubi.keymap import KeyMap, Rename

CLIP = KeyMap(
    (
        Rename("visual.patch_embedding", "embeddings.patch_embedding"),
        Rename("visual.cls_embedding", "embeddings.class_embedding"),
        Rename("visual.pos_embedding", "embeddings.position_embedding.weight"),
        Rename("visual.pre_norm", "pre_layrnorm"),
        Rename("visual.post_norm", "post_layernorm"),
        Rename("visual.transformer.{}.norm1", "encoder.layers.{}.layer_norm1"),
        Rename("visual.transformer.{}.norm2", "encoder.layers.{}.layer_norm2"),
        Rename(
            "visual.transformer.{}.attn.to_qkv",
            tuple(f"encoder.layers.{{}}.self_attn.{part}_proj" for part in ("q", "k", "v")),
        ),
        Rename("visual.transformer.{}.attn.proj", "encoder.layers.{}.self_attn.out_proj"),
        Rename("visual.transformer.{}.mlp.0", "encoder.layers.{}.mlp.fc1"),
        Rename("visual.transformer.{}.mlp.2", "encoder.layers.{}.mlp.fc2"),
    )
)
"""transformers spells ``pre_layrnorm`` so; queries, keys and values are the rows of one original matrix."""
