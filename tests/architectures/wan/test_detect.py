from __future__ import annotations

from collections.abc import Mapping

import pytest

from musubi.architectures.wan.detect import Kind, describe
from musubi.architectures.wan.keys import DIT, UMT5
from musubi.causal_vae.keys import vae_keys
from musubi.keymap import KeyMap
from tests.architectures.wan import published
from tests.architectures.wan.fakes import header_only

SMALL = published.transformer(published.SMALL)
VAE = {"encoder.conv1.weight": (96, 3, 3, 3, 3), "decoder.middle.0.residual.0.gamma": (384, 1, 1, 1)}

WAN: list[tuple[published.Shapes, str]] = [
    (SMALL, "Wan T2V transformer of width 1536"),
    (published.transformer(published.LARGE, inputs=36, clip=True), "Wan 2.1 I2V"),
    (published.transformer(published.LARGE, inputs=36, clip=True, flf=True), "Wan 2.1 FLF2V"),
    (published.transformer(published.SMALL, inputs=48, clip=True), "Wan 2.1 Fun Control"),
    (published.transformer(published.LARGE, inputs=36), "Wan 2.2 I2V-A14B"),
    (published.transformer(published.Size(3072, 14336, 30), inputs=48, outputs=48), "Wan 2.2 TI2V-5B"),
]


@pytest.mark.parametrize(("shapes", "title"), WAN, ids=[title for _, title in WAN])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_every_variant_of_the_transformer_is_told(shapes: published.Shapes, title: str, prefix: str) -> None:
    found = describe(header_only({prefix + name: shape for name, shape in shapes.items()}))

    assert found.kind == "dit"
    assert title in found.title
    assert found.shapes == shapes


@pytest.mark.parametrize(
    ("shapes", "keys", "kind"),
    [(SMALL, DIT, "dit"), (published.umt5(layers=2), UMT5, "umt5")],
    ids=["dit", "umt5"],
)
def test_library_names_are_described_by_original_names(shapes: published.Shapes, keys: KeyMap, kind: Kind) -> None:
    found = describe(header_only({keys.to_library(name)[0].name: shape for name, shape in shapes.items()}))

    assert found.kind == kind
    assert not found.original_names
    assert found.shapes == shapes


@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize(("channels", "kind"), [(16, "vae"), (48, "vae22")])
def test_the_two_vaes_are_told_apart(original: bool, channels: int, kind: Kind) -> None:
    shapes = {**VAE, "conv2.weight": (channels, channels, 1, 1, 1)}
    keys = KeyMap(()) if original else vae_keys()

    found = describe(header_only({keys.to_library(name)[0].name: shape for name, shape in shapes.items()}))

    assert found.kind == kind
    assert ("2.2" in found.title) == (channels == 48)


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_the_text_encoder_is_told_in_both_spellings(prefix: str) -> None:
    shapes = published.umt5(layers=2)

    found = describe(header_only({prefix + name: shape for name, shape in shapes.items()}))

    assert found.kind == "umt5"
    assert found.shapes == shapes


@pytest.mark.parametrize(
    ("part", "title"),
    [
        ("vace_blocks.0.before_proj.weight", "VACE"),
        ("audio_injector.injector.0.q.weight", "S2V"),
        ("motion_encoder.enc.fc.0.weight", "Animate"),
        ("ref_conv.weight", "reference image"),
        ("control_adapter.conv.weight", "Camera"),
    ],
)
def test_derivatives_are_named_and_not_taken_for_the_model(part: str, title: str) -> None:
    found = describe(header_only({**SMALL, part: (1,)}))

    assert found.kind == "other"
    assert title in found.title


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("double_blocks.0.img_attn_qkv.weight", "HunyuanVideo transformer"),
        ("model.model.double_blocks.0.img_attn_qkv.weight", "HunyuanVideo transformer"),
        ("clean_x_embedder.proj_4x.weight", "FramePack"),
        ("transformer_blocks.0.img_mod.1.weight", "Qwen-Image"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "FLUX"),
        ("vae.encoder.down_blocks.0.resnets.0.conv1.conv.weight", "HunyuanVideo VAE"),
        ("text_model.encoder.layers.0.self_attn.q_proj.weight", "CLIP text"),
        ("model.layers.0.self_attn.q_proj.weight", "Llama"),
        ("lora_unet_blocks_0_self_attn_q.lora_down.weight", "LoRA"),
        ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", "LoRA"),
    ],
)
def test_other_common_files_are_named(name: str, title: str) -> None:
    found = describe(header_only({name: (8, 8)}))

    assert found.kind == "other"
    assert title in found.title


def test_an_unknown_file_shows_some_of_its_names() -> None:
    shapes: Mapping[str, tuple[int, ...]] = {f"layer{i}.w": (1,) for i in range(9)}

    assert describe(header_only(shapes)).title == (
        "an unknown checkpoint (9 tensors: layer0.w, layer1.w, layer2.w, layer3.w, ...)"
    )


def test_a_t5_with_one_bias_table_is_not_umt5() -> None:
    shapes = published.umt5(layers=2)
    del shapes["blocks.1.pos_embedding.embedding.weight"]

    assert describe(header_only(shapes)).title.startswith("a T5 encoder")
