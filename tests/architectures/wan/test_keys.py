from __future__ import annotations

import pytest
from accelerate import init_empty_weights
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import nn

from musubi.architectures.wan.denoiser import empty_transformer
from musubi.architectures.wan.detect import describe
from musubi.architectures.wan.facts import DitFacts, TextFacts
from musubi.architectures.wan.keys import DIT, UMT5, vae_keys
from musubi.architectures.wan.text import empty_umt5
from musubi.keymap import KeyMap
from tests.architectures.wan import published
from tests.architectures.wan.fakes import header_only

VARIANTS = [
    pytest.param(published.transformer(published.SMALL), 825, id="t2v-1.3B"),
    pytest.param(published.transformer(published.LARGE), 1095, id="t2v-14B"),
    pytest.param(published.transformer(published.LARGE, inputs=36, clip=True), 1303, id="i2v-14B"),
    pytest.param(published.transformer(published.LARGE, inputs=36, clip=True, flf=True), 1304, id="flf2v-14B"),
    pytest.param(published.transformer(published.SMALL, inputs=48, clip=True), 983, id="fun-control-1.3B"),
    pytest.param(published.transformer(published.LARGE, inputs=36), 1095, id="i2v-A14B"),
    pytest.param(published.transformer(published.Size(3072, 14336, 30), inputs=48, outputs=48), 825, id="ti2v-5B"),
]


@pytest.mark.parametrize(("shapes", "count"), VARIANTS)
def test_every_variant_maps_completely_and_back_at_published_size(shapes: published.Shapes, count: int) -> None:
    checkpoint = header_only(shapes)

    model = empty_transformer(DitFacts.of(checkpoint, describe(checkpoint)))

    assert len(shapes) == count
    _assert_bijection(shapes, model, DIT)


def test_the_text_encoder_maps_completely_and_back_at_published_size() -> None:
    checkpoint = header_only(published.umt5())

    model = empty_umt5(TextFacts.of(describe(checkpoint)))

    _assert_bijection(published.umt5(), model, UMT5)


@pytest.mark.parametrize("num_res_blocks", [1, 2, 3])
def test_the_vae_maps_one_to_one(num_res_blocks: int) -> None:
    with init_empty_weights():
        model = AutoencoderKLWan(num_res_blocks=num_res_blocks)
    keys = vae_keys(num_res_blocks=num_res_blocks)
    library = [name for name, _ in model.named_parameters()]

    originals = [keys.to_original(name)[0] for name in library]

    assert len(set(originals)) == len(library)
    assert [keys.to_library(name)[0].name for name in originals] == library
    assert not any("block" in name or "quant" in name for name in originals)


def _assert_bijection(shapes: published.Shapes, model: nn.Module, keys: KeyMap) -> None:
    library = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert {keys.to_library(name)[0].name: shape for name, shape in shapes.items()} == library
    assert {keys.to_original(name)[0] for name in library} == set(shapes)
