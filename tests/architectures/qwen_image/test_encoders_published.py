"""The VAE and the language model at their published sizes: every name has its place, and no weight is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import prod

import pytest
from torch import nn

from musubi.architectures.qwen_image.vae import empty_vae
from musubi.architectures.qwen_image.vae_facts import vae_facts
from musubi.architectures.qwen_image.vl import empty_qwen25vl
from musubi.architectures.qwen_image.vl_facts import METADATA, Untold, VisionLanguageFacts
from musubi.architectures.qwen_image.vl_keys import VISION_LANGUAGE
from musubi.causal_vae.facts import LATENTS_MEAN, LATENTS_STD, VaeFacts
from musubi.causal_vae.keys import vae_keys
from musubi.core.errors import WeightsError
from tests.architectures.wan.fakes import header_only

Shapes = dict[str, tuple[int, ...]]

VAE = VaeFacts(
    base_dim=96,
    z_dim=16,
    dim_mult=(1, 2, 4, 4),
    num_res_blocks=2,
    temporal_downsample=(False, True, True),
    latents_mean=LATENTS_MEAN,
    latents_std=LATENTS_STD,
)
QWEN_25_VL_7B = VisionLanguageFacts(
    vocabulary=152064,
    dim=3584,
    ffn_dim=18944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    vision_dim=1280,
    vision_ffn_dim=3420,
    vision_depth=32,
    patch=14,
    temporal_patch=2,
    merge=2,
)


def shapes_of(model: nn.Module) -> Shapes:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def original() -> Shapes:
    """Return what ComfyUI's file holds: the first names, and the layer that makes words."""
    shapes = shapes_of(empty_qwen25vl(QWEN_25_VL_7B))
    return {VISION_LANGUAGE.to_original(name)[0]: shape for name, shape in shapes.items()} | {
        "lm_head.weight": (152064, 3584)
    }


def test_the_vae_has_the_194_names_of_either_layout() -> None:
    keys, library = vae_keys(), shapes_of(empty_vae(VAE))

    originals = {keys.to_original(name)[0]: shape for name, shape in library.items()}

    assert len(originals) == len(library) == 194
    assert [keys.to_library(name)[0].name for name in originals] == [*library]
    assert vae_facts(header_only(library)) == vae_facts(header_only(originals)) == VAE


@pytest.mark.parametrize(
    ("name", "shape", "what"),
    [
        ("encoder.conv_in.weight", (96, 4, 3, 3, 3), "is the VAE of Qwen-Image-Layered"),
        ("encoder.conv_in.weight", (96, 12, 3, 3, 3), "is of pictures of other channels"),
    ],
)
def test_a_vae_of_other_channels_is_named(name: str, shape: tuple[int, ...], what: str) -> None:
    with pytest.raises(WeightsError, match=f"{what}, not Qwen-Image's VAE"):
        vae_facts(header_only({**shapes_of(empty_vae(VAE)), name: shape}))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("encoder.down.0.block.0.conv1.weight", "an image VAE"),
        ("transformer_blocks.0.attn.to_q.weight", "a transformer"),
        ("visual.merger.ln_q.weight", "a vision-language model"),
        ("anything", "something else"),
    ],
)
def test_what_is_no_such_vae_is_named(name: str, what: str) -> None:
    with pytest.raises(WeightsError, match=f"wrong weights for 'vae'.*is {what}"):
        vae_facts(header_only({name: (8, 8)}))


def test_the_language_model_has_the_729_names_of_the_published_file(original: Shapes) -> None:
    assert len(original) == 729
    assert sum(map(prod, original.values())) == pytest.approx(8.29e9, rel=0.01)
    assert "model.layers.27.self_attn.q_proj.bias" in original
    assert "visual.blocks.31.mlp.gate_proj.weight" in original


def newer(name: str) -> str:
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)


def prefixed(name: str) -> str:
    return f"model.diffusion_model.{name}"


@pytest.mark.parametrize("naming", [str, newer, prefixed])
def test_its_sizes_are_read_from_every_naming(naming: Callable[[str], str], original: Shapes) -> None:
    shapes = {naming(name): shape for name, shape in original.items()}

    assert VisionLanguageFacts.of(header_only(shapes)) == QWEN_25_VL_7B


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "a T5 encoder"),
        ("visual.merger.norm.weight", "a Qwen3-VL"),
        ("visual.merger.mlp.0.weight", "a Qwen2-VL"),
        ("model.layers.0.self_attn.q_proj.bias", "a Qwen language model without a vision side"),
        ("model.layers.0.self_attn.q_proj.weight", "a Llama, Gemma or other language model"),
        ("double_blocks.0.img_attn.qkv.weight", "a transformer of a diffusion model"),
        ("anything", "no language model"),
    ],
)
def test_another_model_is_named(name: str, what: str) -> None:
    with pytest.raises(WeightsError, match=f"is {what}, not Qwen2.5-VL.*choose it with text_encoder="):
        VisionLanguageFacts.of(header_only({name: (8, 8)}))


def test_heads_that_make_no_sense_are_asked_for(original: Shapes) -> None:
    narrow = {**original, "model.embed_tokens.weight": (152064, 3580)}

    with pytest.raises(WeightsError, match=r"does not tell how its heads are made up.*config\.json"):
        VisionLanguageFacts.of(header_only(narrow))


@pytest.mark.parametrize("told", ["{", '{"colour": 3}', '{"head_dim": 0}'])
def test_a_description_that_makes_no_sense_is_refused(told: str, original: Shapes) -> None:
    with pytest.raises(WeightsError, match="has a description that makes no sense"):
        VisionLanguageFacts.of(header_only(original, {METADATA: told}))


def test_metadata_tells_what_shapes_do_not(original: Shapes) -> None:
    told = {"head_dim": 64, "mrope_section": [8, 12, 12], "fullatt_block_indexes": [0, 5]}

    facts = VisionLanguageFacts.of(header_only(original, {METADATA: json.dumps(told)}))

    assert facts.untold == Untold(head_dim=64, mrope_section=(8, 12, 12), fullatt_block_indexes=(0, 5))
    assert (facts.num_heads, facts.num_kv_heads) == (56, 8)
