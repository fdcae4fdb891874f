from __future__ import annotations

import attrs
import pytest
import torch
from torch import Tensor

from musubi import FluxKontext
from musubi.architectures.flux_kontext.denoiser import image_ids
from musubi.batch import GUIDANCE, Batch
from musubi.core.errors import CacheError
from musubi.testing.flux_kontext import tiny_flux_kontext

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def kontext(tmp_path_factory: pytest.TempPathFactory) -> FluxKontext:
    return tiny_flux_kontext(tmp_path_factory.mktemp("kontext"))


def batch_of(*controls: tuple[int, int], items: int = 2) -> Batch:
    draw = torch.Generator().manual_seed(0)
    stacked = {
        "t5_vec": torch.randn(items, 7, 32, generator=draw),
        "clip_l_pooler": torch.randn(items, 32, generator=draw),
    }
    for number, size in enumerate(controls):
        stacked[f"latents_control_{number}"] = torch.randn(items, 16, 1, *size, generator=draw)
    return Batch(items=tuple(map(str, range(items))), bucket="", stacked=stacked, ragged={})


def velocity(spec: FluxKontext, batch: Batch) -> Tensor:
    denoiser = spec.denoiser()
    model = denoiser.load(spec.experts[0], device=CPU, dtype=torch.float32)
    x = torch.randn(len(batch), 16, 1, 4, 6, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return denoiser.velocity(model, x, torch.linspace(0.3, 0.8, len(batch)), denoiser.conditions(batch))


def told(batch: Batch, scale: float) -> Batch:
    return attrs.evolve(batch, stacked={**batch.stacked, GUIDANCE: torch.full((len(batch),), scale)})


@pytest.mark.parametrize("controls", [(), ((4, 4),), ((4, 4), (2, 6))])
def test_it_predicts_for_none_one_and_several_pictures(
    controls: tuple[tuple[int, int], ...], kontext: FluxKontext
) -> None:
    found = velocity(kontext, batch_of(*controls))

    assert found.shape == (2, 16, 1, 4, 6)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()


def test_a_second_picture_is_another_than_the_first(kontext: FluxKontext) -> None:
    batch = batch_of((4, 4), (4, 4))
    first, second = batch["latents_control_0"], batch["latents_control_1"]
    swapped = attrs.evolve(batch, stacked={**batch.stacked, "latents_control_0": second, "latents_control_1": first})

    assert (velocity(kontext, swapped) - velocity(kontext, batch)).abs().max() > 1e-4


def test_guidance_in_training_is_the_spec_s_and_a_generation_s_goes_before_it(kontext: FluxKontext) -> None:
    batch, stronger = batch_of((4, 4)), kontext.replace(training_guidance=3.5)

    assert torch.equal(velocity(kontext, batch), velocity(kontext, told(batch, 1.0)))
    assert torch.equal(velocity(stronger, batch), velocity(kontext, told(batch, 3.5)))
    assert torch.equal(velocity(stronger, told(batch, 1.0)), velocity(kontext, batch))
    assert (velocity(stronger, batch) - velocity(kontext, batch)).abs().max() > 1e-4


def test_musubi_tuner_s_single_picture_without_number_and_frame_is_the_same(kontext: FluxKontext) -> None:
    batch = batch_of((4, 4))
    stacked = {name: tensor for name, tensor in batch.stacked.items() if not name.startswith("latents_control")}
    flat = attrs.evolve(batch, stacked={**stacked, "latents_control": batch["latents_control_0"][:, :, 0]})

    assert torch.equal(velocity(kontext, flat), velocity(kontext, batch))


def test_a_batch_without_text_says_so(kontext: FluxKontext) -> None:
    with pytest.raises(CacheError, match="t5_vec"):
        kontext.denoiser().conditions(Batch(items=("a",), bucket="", stacked={}, ragged={}))


def test_places_begin_anew_in_every_picture() -> None:
    places = image_ids(torch.zeros(1, 16, 1, 4, 6), 2)

    assert places.tolist() == [[2.0, float(row), float(column)] for row in range(2) for column in range(3)]


def test_an_entry_tells_what_a_batch_of_the_published_model_holds(kontext: FluxKontext) -> None:
    denoiser = kontext.denoiser()

    shapes = denoiser.entry(denoiser.empty(kontext.experts[0]), (16, 1, 128, 128))

    assert shapes == {
        "latents": (16, 1, 128, 128),
        "latents_control_0": (16, 1, 128, 128),
        "t5_vec": (512, 32),
        "clip_l_pooler": (32,),
    }
