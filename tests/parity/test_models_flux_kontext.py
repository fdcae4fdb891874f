"""FLUX.1 Kontext's denoiser predicts what the reference does, from original names and a batch of the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from musubi import FluxKontext
from musubi.architectures.flux_kontext.denoiser import FluxKontextDenoiser, image_ids
from musubi.batch import GUIDANCE, Batch
from tests.parity.cases import golden, golden_stems, part

each_case = pytest.mark.parametrize("stem", golden_stems("models_flux_kontext"))


@each_case
def test_models_flux_kontext_velocity_equals_the_reference(stem: str, tmp_path: Path) -> None:
    denoiser, model, tensors = _case(stem, tmp_path)

    with torch.no_grad():
        predicted = _velocity(denoiser, model, tensors)

    assert predicted.dtype == torch.float32
    assert (predicted - tensors["out.pred"]).abs().max() <= 2e-5


@each_case
def test_models_flux_kontext_guidance_in_training_is_the_reference_s(stem: str, tmp_path: Path) -> None:
    denoiser, model, tensors = _case(stem, tmp_path)
    assert (tensors["in.guidance"] == 1.0).all()

    with torch.no_grad():
        predicted = _velocity(denoiser, model, tensors, guidance=False)

    assert (predicted - tensors["out.pred"]).abs().max() <= 2e-5


@each_case
def test_models_flux_kontext_gradients_equal_the_reference(stem: str, tmp_path: Path) -> None:
    denoiser, model, tensors = _case(stem, tmp_path)
    model.requires_grad_(True)

    loss = (_velocity(denoiser, model, tensors) - _framed(tensors["in.target"])).square().mean()
    loss.backward()

    assert_close(loss.detach(), tensors["out.loss"], rtol=1e-5, atol=0)
    for name, expected in part(tensors, "grad.").items():
        parts = [model.get_parameter(piece.name).grad for piece in FluxKontext.dev().keys.to_library(name)]
        gradient = torch.cat([one for one in parts if one is not None])
        assert (gradient - expected).abs().max() <= 1e-4 * expected.abs().max(), name


@each_case
def test_models_flux_kontext_in_bfloat16_the_time_is_not_rounded(stem: str, tmp_path: Path) -> None:
    denoiser, model, tensors = _case(stem, tmp_path, torch.bfloat16)
    wrong = tensors.get("out.pred_WRONG_if_timestep_rounded_bf16_twice")

    with torch.no_grad():
        predicted = _velocity(denoiser, model, tensors)

    assert _distance(predicted, _framed(tensors["out.pred"])) < 0.03
    assert wrong is None or _distance(predicted, _framed(wrong)) > 0.03


@each_case
def test_models_flux_kontext_places_equal_the_reference(stem: str) -> None:
    _, tensors = golden(stem)

    places = [image_ids(_framed(tensors[f"in.{name}_latents"]), n) for n, name in enumerate(("noisy", "control"))]

    assert torch.equal(torch.cat(places), tensors["out.img_ids"])


def _case(
    stem: str, folder: Path, dtype: torch.dtype = torch.float32
) -> tuple[FluxKontextDenoiser, nn.Module, dict[str, Tensor]]:
    meta, tensors = golden(stem)
    path = folder / "dit.safetensors"
    axes = {"flux.axes_dims_rope": json.dumps(meta["config"]["axes_dim"])}
    save_file(part(tensors, "ckpt."), path, metadata=axes)
    spec = FluxKontext.dev().with_weights(dit=path)
    denoiser = spec.denoiser()
    expected = {name: _framed(t) if name == "out.pred" else t for name, t in tensors.items()}
    return denoiser, denoiser.load(spec.experts[0], device=torch.device("cpu"), dtype=dtype), expected


def _velocity(
    denoiser: FluxKontextDenoiser, model: nn.Module, tensors: dict[str, Tensor], *, guidance: bool = True
) -> Tensor:
    inputs = part(tensors, "in.")
    stacked = {
        "t5_vec": inputs["t5_vec"],
        "clip_l_pooler": inputs["clip_l_pooler"],
        "latents_control_0": inputs["control_latents"],
        **({GUIDANCE: inputs["guidance"]} if guidance else {}),
    }
    batch = Batch(items=("a", "b"), bucket="", stacked=stacked, ragged={})
    noisy = _framed(inputs["noisy_latents"])
    return denoiser.velocity(model, noisy, inputs["timesteps"], denoiser.conditions(batch))


def _framed(latents: Tensor) -> Tensor:
    return latents[:, :, None] if latents.ndim == 4 else latents


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
