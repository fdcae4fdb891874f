"""Tiny random networks of every Wan task, in the library's classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musubi.architectures.wan.spec import Wan
from musubi.architectures.wan.tasks import Form, Task
from musubi.testing.random_weights import enliven

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from torch import nn
    from transformers import CLIPVisionModel, UMT5EncoderModel

_TEXT_DIM = 32
_CLIP_DIM = 80
_CLIP_TOKENS = 17


def tiny_networks(task: Task, *, dim: int, head_dim: int, num_layers: int, seed: int) -> dict[str, nn.Module]:
    """Return the networks of a task by component, in evaluation mode; the caller's generator does not notice."""
    import torch

    wan = Wan(task=task)
    form = wan.published.form
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, *others = (expert.component for expert in wan.experts)
        networks: dict[str, nn.Module] = {first: _transformer(form, dim, head_dim, num_layers)}
        networks |= {"vae": _vae(large=wan.sight.start), "t5": _text_encoder()}
        for name in (first, "t5"):
            enliven(networks[name])
        for name in others:
            networks[name] = enliven(_transformer(form, dim, head_dim, num_layers))
        if wan.sight.clip:
            networks["clip"] = enliven(_clip())
    return {name: network.eval() for name, network in networks.items()}


def _transformer(form: Form, dim: int, head_dim: int, num_layers: int) -> WanTransformer3DModel:
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    transformer: WanTransformer3DModel = WanTransformer3DModel(
        num_attention_heads=dim // head_dim,
        attention_head_dim=head_dim,
        in_channels=form.inputs,
        out_channels=form.outputs,
        text_dim=_TEXT_DIM,
        freq_dim=32,
        ffn_dim=2 * dim,
        num_layers=num_layers,
        image_dim=_CLIP_DIM if form.image else None,
        added_kv_proj_dim=dim if form.image else None,
        rope_max_seq_len=1024,
        pos_embed_seq_len=None if form.positions is None else 2 * _CLIP_TOKENS,
    )
    return transformer


def _vae(*, large: bool) -> AutoencoderKLWan:
    """Return a VAE of Wan 2.1, or a ``large`` one, of Wan 2.2 TI2V-5B."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    from musubi.architectures.wan.vae22_facts import LATENTS_MEAN_22, LATENTS_STD_22

    if not large:
        small: AutoencoderKLWan = AutoencoderKLWan(base_dim=4)
        return small
    vae: AutoencoderKLWan = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=48,
        latents_mean=list(LATENTS_MEAN_22),
        latents_std=list(LATENTS_STD_22),
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    return vae


def _text_encoder() -> UMT5EncoderModel:
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(
        UMT5Config(vocab_size=128, d_model=_TEXT_DIM, d_kv=16, d_ff=64, num_heads=2, num_layers=2, dropout_rate=0.0)
    )


def _clip() -> CLIPVisionModel:
    """Return an image encoder that sees squares of 56 pixels, sixteen patches of 14."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=_CLIP_DIM,
            intermediate_size=2 * _CLIP_DIM,
            num_hidden_layers=2,
            num_attention_heads=1,
            image_size=56,
            patch_size=14,
            hidden_act="gelu",
        )
    )
