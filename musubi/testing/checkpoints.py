"""Tiny random checkpoints in the file layouts that real models are published in; for tests and experiments."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from musubi.architectures.wan.keys import DIT, UMT5, vae_keys
from musubi.architectures.wan.spec import TEXT_LENGTH, Wan
from musubi.keymap import KeyMap

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

WanFiles = Literal["original", "original_pth", "diffusers"]
"""Single files in original names, safetensors or pickled; or a pipeline folder of diffusers."""

_TEXT_DIM = 32
_LOOKED_UP = ("shared.weight", "encoder.embed_tokens.weight")


def tiny_wan(
    folder: Path | str,
    *,
    layout: WanFiles = "original",
    dim: int = 64,
    head_dim: int = 32,
    num_layers: int = 2,
    seed: int = 0,
) -> Wan:
    """Write a random transformer, VAE, umT5 and tokenizer, each tiny, and return the spec that uses them.

    The same seed gives the same numbers in every layout. The networks are well-behaved: outputs have unit scale, every
    parameter matters, and the transformer can be trained.

    Args:
        folder: Where the files go; made if it does not exist.
        layout: ``original`` (safetensors) or ``original_pth`` files in original names, or a ``diffusers`` folder.
        dim: The transformer's width, a multiple of ``head_dim``.
        head_dim: The width of one attention head; the published models have 128.
        num_layers: Its number of blocks.
        seed: Seeds all weights.

    Example:
        >>> from musubi.testing.checkpoints import tiny_wan
        >>> tiny_wan("/tmp/tiny").weight("vae").name  # doctest: +SKIP
        'vae.safetensors'
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    transformer, vae, encoder = _models(dim, head_dim, num_layers, seed)
    tokenizer = folder / "tokenizer"
    tiny_tokenizer().save_pretrained(tokenizer)
    if layout == "diffusers":
        transformer.save_pretrained(folder / "transformer", max_shard_size="200KB")
        vae.save_pretrained(folder / "vae")
        encoder.save_pretrained(folder / "text_encoder")
        places = {"dit": folder / "transformer", "vae": folder / "vae", "t5": folder / "text_encoder"}
        _write_model_index(folder)
    else:
        suffix = ".pth" if layout == "original_pth" else ".safetensors"
        places = {name: folder / f"{name}{suffix}" for name in ("dit", "vae", "t5")}
        write = _write_pickled if layout == "original_pth" else _write_safetensors
        write(
            places["dit"],
            _original(transformer, DIT),
            {"wan.num_heads": str(transformer.config["num_attention_heads"])},
        )
        write(places["vae"], _original(vae, vae_keys()), {})
        write(places["t5"], _original(encoder, UMT5), {})
    return Wan.t2v_1_3b().with_weights(**places, tokenizer=tokenizer)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that spells: one token for every letter, ``</s>`` at the end, padding with token 0."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(character, -5.0) for character in f"▁{string.ascii_letters}{string.digits}{string.punctuation}"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )


def _models(
    dim: int, head_dim: int, num_layers: int, seed: int
) -> tuple[WanTransformer3DModel, AutoencoderKLWan, UMT5EncoderModel]:
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = WanTransformer3DModel(
            num_attention_heads=dim // head_dim,
            attention_head_dim=head_dim,
            text_dim=_TEXT_DIM,
            freq_dim=32,
            ffn_dim=2 * dim,
            num_layers=num_layers,
            rope_max_seq_len=1024,
        )
        vae = AutoencoderKLWan(base_dim=4)
        config = UMT5Config(
            vocab_size=128, d_model=_TEXT_DIM, d_kv=16, d_ff=64, num_heads=2, num_layers=2, dropout_rate=0.0
        )
        encoder = UMT5EncoderModel(config)
        for model in (transformer, encoder):
            _enliven(model)
    return transformer.eval(), vae.eval(), encoder.eval()


def _enliven(model: nn.Module) -> None:
    """Give every parameter random values, so that a tensor in a wrong place shows."""
    import torch
    from torch import nn

    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and not name.endswith("scale_shift_table"):
            fan_in = parameter[0].numel()
            nn.init.normal_(parameter, std=1.0 if name in _LOOKED_UP else fan_in**-0.5)
        elif "norm" in name and name.endswith("weight"):
            nn.init.normal_(parameter, mean=1.0, std=0.1)
        else:
            with torch.no_grad():
                parameter.normal_(std=0.1)


def _original(model: nn.Module, keys: KeyMap) -> dict[str, Tensor]:
    """Return a model's tensors under original names; for maps that only rename."""
    return {keys.to_original(name)[0]: value.detach().contiguous() for name, value in model.named_parameters()}


def _write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), path, metadata={"format": "pt", **metadata})


def _write_pickled(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a state dict as ``torch.save`` does; the metadata, for which there is no place, goes to ``config.json``."""
    import torch

    torch.save(dict(tensors), path)
    if metadata:
        config = {"_class_name": "WanModel", "num_heads": int(metadata["wan.num_heads"])}
        path.with_name("config.json").write_text(json.dumps(config), encoding="utf-8")


def _write_model_index(folder: Path) -> None:
    index = {
        "_class_name": "WanPipeline",
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
