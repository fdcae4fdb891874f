"""The VAE and the text encoders at their published sizes: every name has its place, and no weight is needed."""

from __future__ import annotations

from math import prod

import pytest
from torch import nn

from musubi.architectures.flux_kontext.clip import empty_clip
from musubi.architectures.flux_kontext.t5 import empty_t5
from musubi.architectures.flux_kontext.text_facts import ClipFacts, T5Facts
from musubi.architectures.flux_kontext.vae import empty_vae
from musubi.architectures.flux_kontext.vae_facts import VaeFacts
from musubi.architectures.flux_kontext.vae_keys import vae_keys
from musubi.core.errors import WeightsError
from tests.architectures.wan.fakes import header_only

Shapes = dict[str, tuple[int, ...]]

AE = VaeFacts(channels=(128, 256, 512, 512), num_res_blocks=2, latent_channels=16, original_names=True)
T5_XXL = T5Facts(
    vocabulary=32128,
    dim=4096,
    ffn_dim=10240,
    num_heads=64,
    head_dim=64,
    num_layers=24,
    num_buckets=32,
    embedding="shared.weight",
)
CLIP_L = ClipFacts(vocabulary=49408, dim=768, ffn_dim=3072, num_heads=12, num_layers=12, num_tokens=77)


def shapes_of(model: nn.Module) -> Shapes:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def ae_file() -> Shapes:
    keys = vae_keys()
    return {keys.to_original(name)[0]: shape for name, shape in shapes_of(empty_vae(AE)).items()}


def test_the_vae_has_the_244_names_of_the_authors_file() -> None:
    keys, library = vae_keys(), list(shapes_of(empty_vae(AE)))

    originals = list(ae_file())

    assert len(originals) == len(library) == 244
    assert [keys.to_library(name)[0].name for name in originals] == library
    assert "decoder.up.3.block.0.conv1.weight" in originals
    assert "encoder.mid.attn_1.q.weight" in originals
    assert not any("resnets" in name or "_block." in name for name in originals)


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
def test_the_vae_s_sizes_are_read_from_either_layout(prefix: str) -> None:
    original = {f"{prefix}{name}": shape for name, shape in ae_file().items()}
    library = shapes_of(empty_vae(AE))

    assert VaeFacts.of(header_only(original)) == AE
    found = VaeFacts.of(header_only(library))
    assert (found.channels, found.num_res_blocks, found.latent_channels) == (AE.channels, 2, 16)
    assert not found.original_names


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("quant_conv.weight", "a Stable Diffusion VAE"),
        ("bn.running_mean", "the VAE of FLUX.2"),
        ("encoder.downsamples.0.residual.0.gamma", "a video VAE"),
        ("double_blocks.0.img_attn.qkv.weight", "a transformer"),
    ],
)
def test_what_is_no_vae_of_flux_is_named(name: str, what: str) -> None:
    with pytest.raises(WeightsError, match=f"wrong weights for 'vae'.*is {what}"):
        VaeFacts.of(header_only({**ae_file(), name: (8, 8)}))


def test_a_vae_that_lacks_a_tensor_is_refused() -> None:
    shapes = ae_file()
    del shapes["encoder.conv_out.weight"]

    with pytest.raises(WeightsError, match=r"lacks 'encoder.conv_out.weight'"):
        VaeFacts.of(header_only(shapes))


def test_t5_has_the_219_names_of_the_published_file() -> None:
    shapes = shapes_of(empty_t5(T5_XXL))

    assert len(shapes) == 219
    assert sum(prod(shape) for shape in shapes.values()) == pytest.approx(4.76e9, rel=0.01)


@pytest.mark.parametrize("prefix", ["", "text_encoders.t5xxl.transformer."])
def test_t5_s_sizes_are_read_whatever_the_prefix(prefix: str) -> None:
    shapes = {f"{prefix}{name}": shape for name, shape in shapes_of(empty_t5(T5_XXL)).items()}

    assert T5Facts.of(header_only(shapes)) == T5_XXL


def test_umt5_is_not_taken_for_t5() -> None:
    bias = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"

    with pytest.raises(WeightsError, match="is umT5, as Wan has it, not T5-XXL"):
        T5Facts.of(header_only({**shapes_of(empty_t5(T5_XXL)), bias: (32, 64)}))


def test_each_text_encoder_is_told_from_the_other() -> None:
    t5, clip = (header_only(shapes_of(model)) for model in (empty_t5(T5_XXL), empty_clip(CLIP_L)))

    with pytest.raises(WeightsError, match=r"wrong weights for 't5'.*is a CLIP text encoder.*choose it with t5="):
        T5Facts.of(clip)
    with pytest.raises(WeightsError, match=r"wrong weights for 'clip_l'.*is a T5 encoder.*choose it with clip_l="):
        ClipFacts.of(t5)


@pytest.mark.parametrize("prefix", ["", "text_model.", "text_encoders.clip_l.transformer.text_model."])
def test_clip_has_the_196_names_of_the_published_file(prefix: str) -> None:
    shapes = {f"{prefix}{name}": shape for name, shape in shapes_of(empty_clip(CLIP_L)).items()}

    assert len(shapes) == 196
    assert ClipFacts.of(header_only(shapes)) == CLIP_L


def test_heads_that_cannot_be_told_are_asked_for() -> None:
    tiny = ClipFacts(vocabulary=100, dim=96, ffn_dim=64, num_heads=6, num_layers=1, num_tokens=20)
    shapes = shapes_of(empty_clip(tiny))

    with pytest.raises(WeightsError, match=r"how many heads share the width of 96.*clip_l\.num_heads"):
        ClipFacts.of(header_only(shapes))
    assert ClipFacts.of(header_only(shapes, {"clip_l.num_heads": "6"})) == tiny
