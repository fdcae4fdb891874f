"""What a checkpoint is, told from its names and shapes alone; no tensor is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import attrs

from musubi.architectures.wan.clip_keys import CLIP
from musubi.architectures.wan.keys import DIT, UMT5
from musubi.architectures.wan.vae22_keys import vae22_keys
from musubi.causal_vae.keys import vae_keys
from musubi.keymap import KeyMap
from musubi.weights.naming import PREFIXES, strip

if TYPE_CHECKING:
    from musubi.weights.checkpoint import Checkpoint

Shapes = Mapping[str, tuple[int, ...]]
"""Original name -> shape."""

Kind = Literal["dit", "vae", "vae22", "umt5", "clip", "other"]

_SIGNS: tuple[tuple[str, str], ...] = (
    (r"double_blocks\.0\.img_attn_qkv\.weight", "a HunyuanVideo transformer"),
    (r"clean_x_embedder\.proj_4x\.weight", "a FramePack transformer"),
    (r"transformer_blocks\.0\.img_mod\.1\.weight", "a Qwen-Image transformer"),
    (r"double_blocks\.0\.img_attn\.qkv\.weight", "a FLUX transformer"),
    (
        r"transformer_blocks\.0\.norm1_context\.linear\.weight",
        "a FLUX or HunyuanVideo transformer in diffusers' layout",
    ),
    (r"(vae\.)?encoder\.down_blocks\.0\.resnets\.0\.conv1\.conv\.weight", "a HunyuanVideo VAE"),
    (r"encoder\.down\.0\.block\.0\.conv1\.weight", "an image VAE (FLUX or Stable Diffusion)"),
    (r"(vision_model\.)?encoder\.layers\.0\.self_attn\.q_proj\.weight", "a CLIP or SigLIP encoder"),
    (r"text_model\.encoder\.layers\.0\.self_attn\.q_proj\.weight", "a CLIP text encoder"),
    (r"(model\.)*layers\.0\.self_attn\.q_proj\.weight", "a Llama or Qwen language model"),
    (r"(lora_unet_|diffusion_model\.|transformer\.).*(lora_down|lora_A|lora_B|lora_up).*", "a LoRA, not a model"),
)

_FOREIGN_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "vace_blocks.": "Wan VACE",
        "audio_injector.": "Wan 2.2 S2V",
        "motion_encoder.": "Wan 2.2 Animate",
        "control_adapter.": "Wan Fun Camera Control",
        "ref_conv.": "Wan Fun Control with a reference image",
    }
)
"""Parts that only derivatives of Wan have."""


@attrs.frozen(kw_only=True)
class Description:
    """What a checkpoint holds: a kind, a title for people, and the shapes under original names."""

    kind: Kind
    title: str
    shapes: Shapes
    original_names: bool


def describe(checkpoint: Checkpoint) -> Description:
    """Tell a Wan transformer, VAE or umT5 in any layout, and the common other files, from names and shapes."""
    names = checkpoint.names()
    short = {strip(name, PREFIXES): checkpoint.shape(name) for name in names}
    if {"head.modulation", "patch_embedding.weight"} <= short.keys():
        return _dit(short, original=True)
    if {"condition_embedder.time_proj.weight", "patch_embedding.weight"} <= short.keys():
        return _dit(_originals(short, DIT), original=False)
    if "decoder.middle.0.residual.0.gamma" in short:
        return _vae(short, original=True)
    if "decoder.mid_block.resnets.0.norm1.gamma" in short:
        residual = "encoder.down_blocks.0.resnets.0.norm1.gamma" in short
        return _vae(_originals(short, vae22_keys() if residual else vae_keys()), original=False)
    encoder = _encoder(short)
    if encoder is not None:
        return encoder
    title = next((what for sign, what in _SIGNS if any(re.fullmatch(sign, name) for name in (*short, *names))), None)
    return Description(
        kind="other", title=title or _unknown(names), shapes=MappingProxyType(short), original_names=True
    )


def _encoder(short: Shapes) -> Description | None:
    """Return what a text or image encoder is, None for anything else."""
    if "encoder.block.0.layer.0.SelfAttention.q.weight" in short:
        return _umt5(_originals(short, UMT5), original=False)
    if "visual.transformer.0.attn.to_qkv.weight" in short:
        return _clip(short, original=True)
    vision = {strip(name, ("vision_model.",)): shape for name, shape in short.items()}
    if {"pre_layrnorm.weight", "encoder.layers.0.self_attn.q_proj.weight"} <= vision.keys():
        return _clip(_originals(vision, CLIP), original=False)
    bare = {strip(name, ("encoder.",)): shape for name, shape in short.items()}
    if "blocks.0.pos_embedding.embedding.weight" in bare:
        return _umt5(bare, original=True)
    return None


def _originals(shapes: Shapes, keys: KeyMap) -> Shapes:
    return {keys.to_original(name)[0]: shape for name, shape in shapes.items()}


def _dit(shapes: Shapes, *, original: bool) -> Description:
    derivative = next((what for part, what in _FOREIGN_PARTS.items() if any(n.startswith(part) for n in shapes)), None)
    title = f"a {derivative or _variant(shapes)} transformer of width {shapes['patch_embedding.weight'][0]}"
    kind: Kind = "other" if derivative else "dit"
    return Description(kind=kind, title=title, shapes=MappingProxyType(dict(shapes)), original_names=original)


def _variant(shapes: Shapes) -> str:
    """Name the variant as far as weights tell: T2V of 2.1 and 2.2 are alike, as are the experts and the resolutions."""
    inputs = shapes["patch_embedding.weight"][1]
    outputs = shapes["head.head.weight"][0] // 4
    image = any(name.startswith("img_emb.") for name in shapes)
    if inputs == outputs == 48:
        return "Wan 2.2 TI2V-5B"
    if "img_emb.emb_pos" in shapes:
        return "Wan 2.1 FLF2V"
    if inputs == 48:
        return "Wan 2.1 Fun Control"
    if inputs == 36:
        return "Wan 2.1 I2V" if image else "Wan 2.2 I2V-A14B"
    if inputs == 16:
        return "Wan 2.1 I2V without image channels" if image else "Wan T2V"
    return f"Wan-like ({inputs} input channels)"


def _vae(shapes: Shapes, *, original: bool) -> Description:
    channels = shapes["conv2.weight"][0]
    residual = any(name.startswith("encoder.downsamples.0.downsamples.") for name in shapes) or channels == 48
    title = "a Wan 2.2 VAE (for TI2V-5B)" if residual else "a Wan 2.1 VAE"
    kind: Kind = "vae22" if residual else "vae"
    return Description(kind=kind, title=title, shapes=MappingProxyType(dict(shapes)), original_names=original)


def _clip(shapes: Shapes, *, original: bool) -> Description:
    title = "the CLIP image encoder of Wan" if original else "a CLIP image encoder"
    return Description(kind="clip", title=title, shapes=MappingProxyType(dict(shapes)), original_names=original)


def _umt5(shapes: Shapes, *, original: bool) -> Description:
    one_bias = "blocks.1.pos_embedding.embedding.weight" not in shapes and "blocks.1.attn.q.weight" in shapes
    title = "a T5 encoder (v1.1, as FLUX uses)" if one_bias else "a umT5 encoder"
    kind: Kind = "other" if one_bias else "umt5"
    return Description(kind=kind, title=title, shapes=MappingProxyType(dict(shapes)), original_names=original)


def _unknown(names: tuple[str, ...]) -> str:
    return f"an unknown checkpoint ({len(names)} tensors: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
