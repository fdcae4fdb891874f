"""Tiny random Qwen-Image models in the file layouts that the real ones are published in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from musubi.architectures.qwen_image.keys import DIT
from musubi.architectures.qwen_image.spec import QwenImage
from musubi.architectures.qwen_image.tasks import MARK, Task
from musubi.architectures.qwen_image.vl_facts import METADATA
from musubi.architectures.qwen_image.vl_keys import VISION_LANGUAGE
from musubi.causal_vae.keys import vae_keys
from musubi.testing.random_weights import enliven
from musubi.testing.writing import original_tensors, write_safetensors

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

QwenImageFiles = Literal["original", "diffusers"]
"""Single files as ComfyUI ships them, the VAE in original names; or a pipeline folder of diffusers."""

_AXES, _MROPE, _FULL = (8, 12, 12), (2, 3, 3), (1,)
_TEXT_DIM, _TEXT_HEADS, _VISION_DIM, _VISION_HEADS, _WINDOW = 64, 4, 32, 2, 56
_FOLDERS: Mapping[str, str] = MappingProxyType(
    {"dit": "transformer", "vae": "vae", "text_encoder": "text_encoder", "tokenizer": "tokenizer"}
)
_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)


def tiny_qwen_image(
    folder: Path | str,
    *,
    task: Task = "text_to_image",
    layout: QwenImageFiles = "original",
    dim: int = 64,
    num_layers: int = 2,
    seed: int = 0,
) -> QwenImage:
    """Write a transformer, a VAE and a language model, each random and tiny, and a tokenizer; return the spec of them.

    The same seed gives the same numbers in both layouts. Everything in the networks matters, and they can be trained.

    Args:
        folder: Where the files go; made if it does not exist.
        task: The published model that they stand for.
        layout: ``original`` files, or a ``diffusers`` folder.
        dim: The transformer's width, a multiple of 32, the width of a head; the published one's heads have 128.
        num_layers: Its number of blocks.
        seed: Seeds all weights.

    Example:
        >>> from musubi.testing.qwen_image import tiny_qwen_image
        >>> tiny_qwen_image("/tmp/tiny", task="edit").weight("text_encoder").name  # doctest: +SKIP
        'text_encoder.safetensors'
    """
    import torch

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_qwen_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = _transformer(dim, num_layers, zero_time=task == "edit_2511")
        vae = _vae()
        text_encoder = _vision_language(tokenizer)
        enliven(transformer)
        enliven(text_encoder)
    tokenizer.save_pretrained(folder / "tokenizer")
    if layout == "diffusers":
        return _write_folder(folder, task, transformer, vae, text_encoder)
    axes = {"qwen_image.axes_dims_rope": json.dumps(_AXES)}
    marked = {MARK: torch.zeros(1)} if task == "edit_2511" else {}
    write_safetensors(folder / "dit.safetensors", {**original_tensors(transformer, DIT), **marked}, axes)
    write_safetensors(folder / "vae.safetensors", original_tensors(vae, vae_keys()), {})
    states = original_tensors(text_encoder.model, VISION_LANGUAGE)
    words = {"lm_head.weight": text_encoder.lm_head.weight.detach().clone()}
    write_safetensors(folder / "text_encoder.safetensors", {**states, **words}, {METADATA: json.dumps(_untold())})
    files = {name: folder / f"{name}.safetensors" for name in ("dit", "vae", "text_encoder")}
    return QwenImage(task=task).with_weights(**files, tokenizer=folder / "tokenizer")


def tiny_qwen_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that spells: one token for every byte, and Qwen's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(_SPECIAL),
        model_max_length=131072,
    )


def _transformer(dim: int, num_layers: int, *, zero_time: bool) -> QwenImageTransformer2DModel:
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

    transformer: QwenImageTransformer2DModel = QwenImageTransformer2DModel(
        num_layers=num_layers,
        attention_head_dim=sum(_AXES),
        num_attention_heads=dim // sum(_AXES),
        joint_attention_dim=_TEXT_DIM,
        axes_dims_rope=_AXES,
        zero_cond_t=zero_time,
    )
    transformer.eval()
    return transformer


def _vae() -> AutoencoderKLQwenImage:
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage

    vae: AutoencoderKLQwenImage = AutoencoderKLQwenImage(base_dim=4)
    vae.eval()
    return vae


def _vision_language(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": _TEXT_DIM,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": _TEXT_HEADS,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": list(_MROPE)},
    }
    vision = {
        "depth": 2,
        "hidden_size": _VISION_DIM,
        "intermediate_size": 48,
        "num_heads": _VISION_HEADS,
        "out_hidden_size": _TEXT_DIM,
        "window_size": _WINDOW,
        "fullatt_block_indexes": list(_FULL),
    }
    named = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in named.items()}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **cast(Any, ids))
    model: Qwen2_5_VLForConditionalGeneration = Qwen2_5_VLForConditionalGeneration(config)
    model.eval()
    return model


def _untold() -> dict[str, object]:
    return {
        "head_dim": _TEXT_DIM // _TEXT_HEADS,
        "mrope_section": list(_MROPE),
        "vision_heads": _VISION_HEADS,
        "window_size": _WINDOW,
        "fullatt_block_indexes": list(_FULL),
    }


def _write_folder(
    folder: Path,
    task: Task,
    transformer: QwenImageTransformer2DModel,
    vae: AutoencoderKLQwenImage,
    text_encoder: Qwen2_5_VLForConditionalGeneration,
) -> QwenImage:
    """Write a pipeline folder, the transformer in several files."""
    networks: Mapping[str, Any] = {"transformer": transformer, "vae": vae, "text_encoder": text_encoder}
    for name, network in networks.items():
        network.save_pretrained(folder / name, **({"max_shard_size": "200KB"} if name == "transformer" else {}))
    pipelines = {"text_to_image": "QwenImagePipeline", "edit": "QwenImageEditPipeline"}
    index = {
        "_class_name": pipelines.get(task, "QwenImageEditPlusPipeline"),
        "transformer": ["diffusers", "QwenImageTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKLQwenImage"],
        "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    places = {component: folder / name for component, name in _FOLDERS.items()}
    return QwenImage(task=task).with_weights(**places)
