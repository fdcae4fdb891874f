"""Tiny random checkpoints in the file layouts that real models are published in; for tests and experiments."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast

from musubi.architectures.wan.clip_keys import CLIP
from musubi.architectures.wan.keys import DIT, UMT5
from musubi.architectures.wan.spec import TEXT_LENGTH, Wan
from musubi.architectures.wan.tasks import Task
from musubi.architectures.wan.vae22_keys import vae22_keys
from musubi.causal_vae.keys import vae_keys
from musubi.keymap import KeyMap
from musubi.testing.tiny_networks import tiny_networks
from musubi.testing.writing import original_tensors, write_safetensors

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

WanFiles = Literal["original", "original_pth", "diffusers"]
"""Single files in original names, safetensors or pickled; or a pipeline folder of diffusers."""

_FOLDERS: Mapping[str, str] = MappingProxyType(
    {
        "dit": "transformer",
        "dit_high": "transformer",
        "dit_low": "transformer_2",
        "vae": "vae",
        "t5": "text_encoder",
        "clip": "image_encoder",
    }
)
"""Where diffusers keeps each component."""


def tiny_wan(
    folder: Path | str,
    *,
    task: Task = "t2v_1_3b",
    layout: WanFiles = "original",
    dim: int = 64,
    head_dim: int = 32,
    num_layers: int = 2,
    seed: int = 0,
) -> Wan:
    """Write the networks of a task, each random and tiny, and a tokenizer, and return the spec that uses them.

    The same seed gives the same numbers in every layout. The networks are well-behaved: outputs have unit scale, every
    parameter matters, and the transformers can be trained.

    Args:
        folder: Where the files go; made if it does not exist.
        task: The published model whose parts there are: two transformers for Wan 2.2 A14B, CLIP where it is looked at.
        layout: ``original`` (safetensors) or ``original_pth`` files in original names, or a ``diffusers`` folder.
        dim: The transformer's width, a multiple of ``head_dim``.
        head_dim: The width of one attention head; the published models have 128.
        num_layers: Its number of blocks.
        seed: Seeds all weights.

    Example:
        >>> from musubi.testing.checkpoints import tiny_wan
        >>> tiny_wan("/tmp/tiny", task="i2v_14b").weight("clip").name  # doctest: +SKIP
        'clip.safetensors'
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    networks = tiny_networks(task, dim=dim, head_dim=head_dim, num_layers=num_layers, seed=seed)
    tokenizer = folder / "tokenizer"
    tiny_tokenizer().save_pretrained(tokenizer)
    places = write_networks(folder, networks, layout=layout)
    return Wan(task=task).with_weights(**places, tokenizer=tokenizer)


def write_networks(folder: Path, networks: Mapping[str, nn.Module], *, layout: WanFiles) -> dict[str, Path]:
    """Write networks by component and return where each of them is."""
    if layout == "diffusers":
        places = _write_folders(folder, networks)
        _write_model_index(folder, places)
        return places
    suffix = ".pth" if layout == "original_pth" else ".safetensors"
    write = _write_pickled if layout == "original_pth" else write_safetensors
    for name, network in networks.items():
        write(folder / f"{name}{suffix}", original_tensors(network, _keys(name, network)), _heads(name, network))
    return {name: folder / f"{name}{suffix}" for name in networks}


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


def _heads(component: str, network: nn.Module) -> dict[str, str]:
    """Return what the metadata must tell of a transformer, because its shapes do not."""
    if not component.startswith("dit"):
        return {}
    return {"wan.num_heads": str(getattr(network, "config", {})["num_attention_heads"])}


def _keys(component: str, network: nn.Module) -> KeyMap:
    """Return what a component's tensors are called in its original file."""
    if component == "vae":
        large = getattr(network, "config", {})["is_residual"]
        return vae22_keys() if large else vae_keys()
    return {"t5": UMT5, "clip": CLIP}.get(component, DIT)


def _write_pickled(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a state dict as ``torch.save`` does; the metadata, for which there is no place, goes to ``config.json``."""
    import torch

    torch.save(dict(tensors), path)
    if metadata:
        config = {"_class_name": "WanModel", "num_heads": int(metadata["wan.num_heads"])}
        path.with_name("config.json").write_text(json.dumps(config), encoding="utf-8")


def _write_folders(folder: Path, networks: Mapping[str, nn.Module]) -> dict[str, Path]:
    places = {name: folder / _FOLDERS[name] for name in networks}
    for name, network in networks.items():
        shards = {"max_shard_size": "200KB"} if name.startswith("dit") else {}
        cast(Any, network).save_pretrained(places[name], **shards)
    return places


def _write_model_index(folder: Path, places: Mapping[str, Path]) -> None:
    classes = {
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "image_encoder": ["transformers", "CLIPVisionModel"],
    }
    index = {
        "_class_name": "WanImageToVideoPipeline" if "clip" in places else "WanPipeline",
        **{path.name: classes[path.name] for path in places.values()},
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
