"""The tiny models of the reference's LoRA vectors, built from their constructor arguments on the meta device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from musubi import FluxKontext, FramePack, HunyuanVideo, QwenImage, Wan
from musubi.architecture import Architecture
from musubi.architectures.flux_kontext import facts as flux_facts
from musubi.architectures.flux_kontext import transformer as flux
from musubi.architectures.framepack import facts as framepack_facts
from musubi.architectures.framepack import transformer as framepack
from musubi.architectures.hunyuan_video import facts as hunyuan_facts
from musubi.architectures.hunyuan_video import transformer as hunyuan
from musubi.architectures.qwen_image import facts as qwen_facts
from musubi.architectures.qwen_image import transformer as qwen
from musubi.architectures.wan import transformer as wan
from musubi.architectures.wan.facts import DitFacts as WanFacts
from tests.parity.cases import vector, vector_stems


@attrs.frozen
class TinyModel:
    """An architecture and a model of it."""

    architecture: Architecture
    model: nn.Module


def model_configs() -> dict[str, dict[str, Any]]:
    """Return the constructor arguments of every architecture's tiny model, from all LoRA vectors that there are."""
    beside = json.loads((Path(__file__).parents[1] / "vectors/train_lora_keys.json").read_text(encoding="utf-8"))
    found = [beside, *map(vector, vector_stems("train_lora_keys"))]
    return {case["arch"]: case["model_config"] for file in found for case in file["cases"] if "model_config" in case}


def tiny_model(arch: str, config: dict[str, Any]) -> TinyModel:
    """Return the model that the reference's class makes of these arguments."""
    family = "wan" if arch.startswith("wan") else arch
    return {
        "wan": _wan,
        "hunyuan_video": _hunyuan_video,
        "framepack": _framepack,
        "flux_kontext": _flux_kontext,
        "qwen_image": _qwen_image,
    }[family](config)


def _wan(config: dict[str, Any]) -> TinyModel:
    image = config["model_version"] == "2.1" and config["model_type"] != "t2v"
    facts = WanFacts(
        dim=config["dim"],
        ffn_dim=config["ffn_dim"],
        num_heads=config["num_heads"],
        num_layers=config["num_layers"],
        in_channels=config["in_dim"],
        out_channels=config["out_dim"],
        text_dim=config["text_dim"],
        freq_dim=config["freq_dim"],
        patch=(1, 2, 2),
        image_dim=1280 if image else None,
        image_tokens=514 if config["model_type"] == "flf2v" else None,
        image_keys=image,
    )
    return TinyModel(Wan.t2v_14b(), wan.empty_transformer(facts))


def _hunyuan_video(config: dict[str, Any]) -> TinyModel:
    facts = hunyuan_facts.DitFacts(
        dim=config["hidden_size"],
        head_dim=config["hidden_size"] // config["heads_num"],
        mlp_dim=int(config["hidden_size"] * config["mlp_width_ratio"]),
        num_double=config["mm_double_blocks_depth"],
        num_single=config["mm_single_blocks_depth"],
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        text_dim=config["text_states_dim"],
        pooled_dim=config["text_states_dim_2"],
        guided=config["guidance_embed"],
        axes=tuple(config["rope_dim_list"]),
    )
    return TinyModel(HunyuanVideo.t2v(), hunyuan.empty_transformer(facts))


def _framepack(config: dict[str, Any]) -> TinyModel:
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    facts = framepack_facts.DitFacts(
        dim=dim,
        head_dim=config["attention_head_dim"],
        mlp_dim=int(dim * config.get("mlp_ratio", 4)),
        num_double=config["num_layers"],
        num_single=config["num_single_layers"],
        num_refiner=config["num_refiner_layers"],
        text_dim=config["text_embed_dim"],
        pooled_dim=config["pooled_projection_dim"],
        image_dim=config["image_proj_dim"],
        axes=tuple(config["rope_axes_dim"]),
    )
    return TinyModel(FramePack.inverted(), framepack.empty_transformer(facts))


def _flux_kontext(config: dict[str, Any]) -> TinyModel:
    facts = flux_facts.DitFacts(
        dim=config["hidden_size"],
        head_dim=config["hidden_size"] // config["num_heads"],
        num_double=config["depth"],
        num_single=config["depth_single_blocks"],
        in_channels=config["in_channels"],
        out_channels=config["in_channels"],
        text_dim=config["context_in_dim"],
        pooled_dim=config["vec_in_dim"],
        guided=config["guidance_embed"],
        axes=tuple(config["axes_dim"]),
    )
    return TinyModel(FluxKontext.dev(), flux.empty_transformer(facts))


def _qwen_image(config: dict[str, Any]) -> TinyModel:
    facts = qwen_facts.DitFacts(
        dim=config["num_attention_heads"] * config["attention_head_dim"],
        head_dim=config["attention_head_dim"],
        blocks=tuple(range(config["num_layers"])),
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        text_dim=config["joint_attention_dim"],
        axes=tuple(config["axes_dims_rope"]),
    )
    return TinyModel(QwenImage.text_to_image(), qwen.empty_transformer(facts))
