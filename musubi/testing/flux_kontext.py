"""A tiny random FLUX.1 Kontext in the file layouts that the real one is published in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from musubi.architectures.flux_kontext.keys import DIT
from musubi.architectures.flux_kontext.spec import FluxKontext
from musubi.architectures.flux_kontext.vae_keys import vae_keys
from musubi.keymap import KeyMap
from musubi.testing.checkpoints import tiny_tokenizer
from musubi.testing.random_weights import enliven
from musubi.testing.writing import original_tensors, write_safetensors

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

FluxKontextFiles = Literal["original", "diffusers"]
"""Single files as Black Forest Labs and ComfyUI ship them; or a pipeline folder of diffusers."""

_AXES, _TEXT_DIM, _POOLED_DIM, _CLIP_HEADS = (8, 12, 12), 32, 32, 2
_CHANNELS = (32, 32, 32, 32)
_FOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "dit": "transformer",
        "vae": "vae",
        "t5": "text_encoder_2",
        "clip_l": "text_encoder",
        "t5_tokenizer": "tokenizer_2",
        "clip_l_tokenizer": "tokenizer",
    }
)


def tiny_flux_kontext(
    folder: Path | str,
    *,
    layout: FluxKontextFiles = "original",
    dim: int = 64,
    num_double: int = 2,
    num_single: int = 2,
    seed: int = 0,
) -> FluxKontext:
    """Write a transformer, a VAE and two text encoders, each random and tiny, and tokenizers; return the spec of them.

    The same seed gives the same numbers in both layouts. Everything in the networks matters, and they can be trained.

    Args:
        folder: Where the files go; made if it does not exist.
        layout: ``original`` files, or a ``diffusers`` folder.
        dim: The transformer's width, a multiple of 32, the width of a head; the published one's heads have 128.
        num_double: Its number of double blocks.
        num_single: Its number of single blocks.
        seed: Seeds all weights.

    Example:
        >>> from musubi.testing.flux_kontext import tiny_flux_kontext
        >>> tiny_flux_kontext("/tmp/tiny").weight("t5").name  # doctest: +SKIP
        't5.safetensors'
    """
    import torch

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = {"dit": _transformer(dim, num_double, num_single), "vae": _vae(), "t5": _t5(), "clip_l": _clip()}
        for name in ("dit", "t5", "clip_l"):
            enliven(networks[name])
    tokenizers = {"t5_tokenizer": tiny_tokenizer(), "clip_l_tokenizer": tiny_clip_tokenizer()}
    for name, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(folder / _FOLDERS[name])
    places = {name: folder / _FOLDERS[name] for name in tokenizers}
    write = _write_folder if layout == "diffusers" else _write_files
    return FluxKontext.dev().with_weights(**write(folder, networks), **places)


def tiny_clip_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that spells in lower case: one token for every byte, CLIP's tokens around, 77 at most."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    start, end = "<|startoftext|>", "<|endoftext|>"
    vocabulary = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {start: len(vocabulary), end: len(vocabulary) + 1}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B {end}",
        special_tokens=[(token, vocabulary[token]) for token in (start, end)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, eos_token=end, pad_token=end, unk_token=end, model_max_length=77
    )


def _transformer(dim: int, num_double: int, num_single: int) -> nn.Module:
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    transformer: nn.Module = FluxTransformer2DModel(
        num_layers=num_double,
        num_single_layers=num_single,
        attention_head_dim=sum(_AXES),
        num_attention_heads=dim // sum(_AXES),
        joint_attention_dim=_TEXT_DIM,
        pooled_projection_dim=_POOLED_DIM,
        guidance_embeds=True,
        axes_dims_rope=_AXES,
    )
    return transformer.eval()


def _vae() -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    levels = len(_CHANNELS)
    sizes: Mapping[str, Any] = {  # the class says that each of these tuples has one element
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": _CHANNELS,
    }
    vae: nn.Module = AutoencoderKL(
        **sizes,
        layers_per_block=1,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return vae.eval()


def _t5() -> nn.Module:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=128,
        d_model=_TEXT_DIM,
        d_kv=16,
        d_ff=64,
        num_heads=2,
        num_layers=2,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    encoder: nn.Module = T5EncoderModel(config)
    return encoder.eval()


def _clip() -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=258,
        hidden_size=_POOLED_DIM,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=_CLIP_HEADS,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=0,
        eos_token_id=2,
    )
    encoder: nn.Module = CLIPTextModel(config)
    return encoder.eval()


def _write_files(folder: Path, networks: Mapping[str, nn.Module]) -> dict[str, Path]:
    """Write single files in original names: T5 with its embedding twice, as the published file has it."""
    convolutions = original_tensors(networks["vae"], vae_keys(num_levels=len(_CHANNELS)))
    attention = {name for name, tensor in convolutions.items() if ".attn_1." in name and tensor.ndim == 2}
    t5 = original_tensors(networks["t5"], KeyMap(()))
    tensors: dict[str, dict[str, Tensor]] = {
        "dit": _swapped(original_tensors(networks["dit"], DIT)),
        "vae": {name: one[..., None, None] if name in attention else one for name, one in convolutions.items()},
        "t5": {**t5, "encoder.embed_tokens.weight": t5["shared.weight"].clone()},
        "clip_l": {f"text_model.{name}": one for name, one in original_tensors(networks["clip_l"], KeyMap(())).items()},
    }
    told = {
        "dit": {"flux.axes_dims_rope": json.dumps(_AXES)},
        "clip_l": {"clip_l.num_heads": str(_CLIP_HEADS)},
    }
    for name, content in tensors.items():
        write_safetensors(folder / f"{name}.safetensors", content, told.get(name, {}))
    return {name: folder / f"{name}.safetensors" for name in tensors}


def _swapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with shift and scale of the last layer in the original's order."""
    import torch

    last = "final_layer.adaLN_modulation.1"
    halves = {f"{last}.{leaf}": tensors[f"{last}.{leaf}"].chunk(2) for leaf in ("weight", "bias")}
    return {**tensors, **{name: torch.cat([second, first]) for name, (first, second) in halves.items()}}


def _write_folder(folder: Path, networks: Mapping[str, Any]) -> dict[str, Path]:
    """Write a pipeline folder, the transformer in several files."""
    for name, network in networks.items():
        network.save_pretrained(folder / _FOLDERS[name], **({"max_shard_size": "200KB"} if name == "dit" else {}))
    index = {
        "_class_name": "FluxKontextPipeline",
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return {name: folder / _FOLDERS[name] for name in networks}
