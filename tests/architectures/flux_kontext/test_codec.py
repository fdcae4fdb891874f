from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from musubi import FluxKontext
from musubi.architecture import Asked
from musubi.architectures.flux_kontext.codec import FluxKontextCodec
from musubi.batch import Sample
from musubi.core.errors import DataError, WeightsError
from musubi.testing.flux_kontext import tiny_flux_kontext

CPU = torch.device("cpu")
COMPONENTS = ("vae", "t5", "clip_l")


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> FluxKontext:
    return tiny_flux_kontext(tmp_path_factory.mktemp("kontext"))


@pytest.fixture(scope="module")
def codec(kontext: FluxKontext) -> FluxKontextCodec:
    return kontext.codec()


@pytest.fixture(scope="module")
def models(codec: FluxKontextCodec) -> dict[str, nn.Module]:
    return {name: codec.load(name, device=CPU, dtype=torch.float32) for name in COMPONENTS}


def picture(width: int, height: int, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    return torch.tensor(values)


def test_a_component_nobody_loads_is_refused(codec: FluxKontextCodec) -> None:
    with pytest.raises(ValueError, match="no component to load is called 'dit'"):
        codec.load("dit", device=CPU, dtype=torch.float32)


def test_latents_of_each_picture_have_its_own_size(codec: FluxKontextCodec, models: dict[str, nn.Module]) -> None:
    controls = {"control": (picture(64, 32), picture(32, 96))}
    sample = Sample(name="a", pixels=picture(48, 64), controls=controls)

    (entry,) = codec.encode(codec.spec.stages[0], models, [sample])

    assert {name: tuple(tensor.shape) for name, tensor in entry.tensors.items()} == {
        "latents": (16, 1, 8, 6),
        "latents_control_0": (16, 1, 4, 8),
        "latents_control_1": (16, 1, 12, 4),
    }


def test_building_a_cache_twice_gives_the_same_latents(codec: FluxKontextCodec, models: dict[str, nn.Module]) -> None:
    sample = Sample(name="a", pixels=picture(32, 32), controls={"control": (picture(32, 32, 1),)})

    (one,), (other,) = (codec.encode(codec.spec.stages[0], models, [sample]) for _ in range(2))

    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_training_needs_a_picture_to_change(codec: FluxKontextCodec, models: dict[str, nn.Module]) -> None:
    with pytest.raises(DataError, match=r"nothing to change.*item 3: has no control"):
        codec.encode(codec.spec.stages[0], models, [Sample(name="item 3", pixels=picture(32, 32))])


def test_a_request_shows_pictures_at_preferred_sizes_unless_it_says_otherwise(
    codec: FluxKontextCodec, models: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musubi.architectures.flux_kontext.sizes.PREFERRED", ((32, 64), (48, 48), (64, 32)))
    (stage,) = codec.spec.request_stages
    media = {"control": (picture(300, 75), picture(50, 50))}
    asked = Asked(size=(64, 64), frames=1, media=media)
    sized = Asked(size=(64, 64), frames=1, media=media, control_sizes=((32, 48), (16, 16)))

    usual, told = (codec.ask(stage, models, one) for one in (asked, sized))

    assert [tuple(tensor.shape) for tensor in usual.values()] == [(16, 1, 4, 8), (16, 1, 6, 6)]
    assert [tuple(tensor.shape) for tensor in told.values()] == [(16, 1, 6, 4), (16, 1, 2, 2)]


def test_a_request_may_show_nothing(codec: FluxKontextCodec, models: dict[str, nn.Module]) -> None:
    (stage,) = codec.spec.request_stages

    assert codec.ask(stage, models, Asked(size=(64, 64), frames=1, media={})) == {}


def test_captions_that_are_cut_are_said(
    codec: FluxKontextCodec, models: dict[str, nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    codec.encode(codec.spec.stages[1], models, [Sample(name="item 7", caption="a fox " * 300)])

    assert any(message.startswith("item 7: the caption has ") for message in caplog.messages)
    assert codec.caption_lengths(["a fox"]).limit == 512


@pytest.mark.parametrize(
    ("component", "given", "message"),
    [
        ("vae", "dit", "is a transformer, not FLUX.1's VAE"),
        ("t5", "clip_l", "is a CLIP text encoder, not T5-XXL"),
        ("clip_l", "t5", "is a T5 encoder, not CLIP-L's text encoder"),
    ],
)
def test_wrong_files_are_told_before_anything_is_encoded(
    component: str, given: str, message: str, kontext: FluxKontext
) -> None:
    swapped = kontext.with_weights(**{component: kontext.weight(given).resolve()}).codec()

    with pytest.raises(WeightsError, match=message):
        swapped.identity(component)


def test_identities_follow_files_and_tokenizers(kontext: FluxKontext, tmp_path: Path) -> None:
    other = tiny_flux_kontext(tmp_path, seed=1)
    words = kontext.with_weights(t5_tokenizer=kontext.weight("clip_l_tokenizer").resolve())

    assert len({spec.codec().identity("t5") for spec in (kontext, other, words)}) == 3
    assert kontext.codec().identity("clip_l") == words.codec().identity("clip_l")
    assert kontext.codec().identity("vae") != other.codec().identity("vae")


def test_both_layouts_say_the_same(codec: FluxKontextCodec, models: dict[str, nn.Module], tmp_path: Path) -> None:
    folder = tiny_flux_kontext(tmp_path, layout="diffusers").codec()
    theirs = {name: folder.load(name, device=CPU, dtype=torch.float32) for name in COMPONENTS}
    sample = Sample(name="a", caption="a fox", pixels=picture(32, 32), controls={"control": (picture(48, 32, 1),)})

    for stage in codec.spec.stages:
        (one,), (other,) = codec.encode(stage, models, [sample]), folder.encode(stage, theirs, [sample])
        assert one.tensors.keys() == other.tensors.keys()
        for name, tensor in one.tensors.items():
            # Convolutions of one pixel are loaded as the Linears that they are.
            assert (tensor - other.tensors[name]).abs().max() <= 1e-6, name


def test_pictures_come_back_as_they_went_in_shape(codec: FluxKontextCodec, models: dict[str, nn.Module]) -> None:
    frames = codec.decode(models, torch.randn(2, 16, 1, 4, 6))

    assert frames.shape == (2, 1, 32, 48, 3)
    assert frames.dtype == torch.float32
    assert frames.min() >= 0
    assert frames.max() <= 1
