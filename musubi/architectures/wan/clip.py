"""CLIP's image encoder (ViT-H) on transformers' class: what Wan 2.1's image models see of a picture as a whole.

Shape suffixes: B batch, C channels, H height, W width, L tokens, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel

from musubi.architectures.wan.clip_facts import ClipFacts
from musubi.architectures.wan.clip_keys import CLIP
from musubi.architectures.wan.fit import expect, legible
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.load import load_into
from musubi.weights.naming import PREFIXES

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of red, green and blue that CLIP was trained with, for values from 0 to 1."""

_OTHER_PARTS = (
    *("visual.head", r"textual\..*", "log_scale"),
    *(r"text_model\..*", "visual_projection.weight", "text_projection.weight", "logit_scale", r".*position_ids"),
)
"""What files hold of CLIP beside its image encoder."""

_CLASS, _POSITIONS = "embeddings.class_embedding", "embeddings.position_embedding.weight"


def load_clip(path: Path, *, device: torch.device, dtype: torch.dtype) -> CLIPVisionModel:
    """Load all but the last block from a file or folder of any layout, frozen; raises ``WeightsError``."""
    with open_checkpoint(path) as checkpoint:
        found = expect(checkpoint, "clip", component="clip")
        with legible(checkpoint):
            facts = ClipFacts.of(checkpoint, found)
        clip = empty_clip(facts)
        if found.original_names:
            _add_ones(clip)
        last = facts.num_layers - 1
        load_into(
            clip,
            checkpoint,
            keys=CLIP,
            device=device,
            dtype=dtype,
            prefixes=(*PREFIXES, "vision_model."),
            ignore=(*_OTHER_PARTS, rf"(visual\.transformer|encoder\.layers)\.{last}\..*"),
        )
    _drop_ones(clip)
    clip.eval().requires_grad_(False)
    return clip


def empty_clip(facts: ClipFacts) -> CLIPVisionModel:
    """Build transformers' encoder on the meta device without the last block: Wan sees what that one would get."""
    config = CLIPVisionConfig(
        hidden_size=facts.width,
        intermediate_size=facts.ffn_width,
        num_hidden_layers=facts.num_layers - 1,
        num_attention_heads=facts.num_heads,
        image_size=facts.image_size,
        patch_size=facts.patch,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
    )
    with init_empty_weights():
        clip = CLIPVisionModel(config)
    clip.set_attn_implementation("sdpa")
    return clip


@torch.no_grad()
def encode_images(clip: CLIPVisionModel, images_BCHW: Tensor) -> Tensor:
    """Return the features (B, L, D) of pictures in [-1, 1], in the encoder's type."""
    pixels = preprocess(images_BCHW.to(clip.device), size=cast(int, clip.config.image_size))
    features: Tensor = clip(pixel_values=pixels.to(clip.dtype)).last_hidden_state
    return features


def preprocess(images_BCHW: Tensor, *, size: int) -> Tensor:
    """Return whole pictures in [-1, 1] as squares (B, 3, size, size) on CLIP's scale, in float32.

    They are stretched, by cubic interpolation that does not smooth, as in the authors' ``wan/modules/clip.py``.
    """
    squares = functional.interpolate(images_BCHW.float(), size=(size, size), mode="bicubic", align_corners=False)
    mean, std = (squares.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (squares * 0.5 + 0.5 - mean) / std


def _add_ones(clip: CLIPVisionModel) -> None:
    """Give two parameters the leading dimensions that they have in the original file."""
    _view(clip, _CLASS, 1, 1, -1)
    _view(clip, _POSITIONS, 1, *clip.get_parameter(_POSITIONS).shape)


def _drop_ones(clip: CLIPVisionModel) -> None:
    """Give them the shapes that the class computes with."""
    _view(clip, _CLASS, -1)
    _view(clip, _POSITIONS, *clip.get_parameter(_POSITIONS).shape[-2:])


def _view(clip: CLIPVisionModel, name: str, *shape: int) -> None:
    module, _, leaf = name.rpartition(".")
    viewed = nn.Parameter(clip.get_parameter(name).detach().view(*shape), requires_grad=False)
    clip.get_submodule(module).register_parameter(leaf, viewed)
