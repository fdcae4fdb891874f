"""The transformer gives the reference's velocities and gradients, from checkpoints in the original layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from musubi.architecture import Expert
from musubi.architectures.wan.denoiser import WanConditions, pad_text
from musubi.architectures.wan.spec import Wan
from tests.parity.cases import golden, golden_stems, part

STEMS = golden_stems("models_wan21_t2v")
each_case = pytest.mark.parametrize("stem", STEMS)


@each_case
@pytest.mark.parametrize("padded", [False, True], ids=["short", "padded"])
def test_models_wan21_t2v_velocity_equals_the_reference(stem: str, padded: bool, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    spec = _spec(meta, tensors, tmp_path)
    model = spec.denoiser().load(Expert(), device=torch.device("cpu"), dtype=torch.float32)

    with torch.no_grad():
        predicted = _velocity(spec, model, tensors, padded=padded)

    assert predicted.dtype == torch.float32
    assert (predicted - tensors["out.pred"]).abs().max() <= 1e-5


@each_case
def test_models_wan21_t2v_gradients_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    spec = _spec(meta, tensors, tmp_path)
    model = spec.denoiser().load(Expert(), device=torch.device("cpu"), dtype=torch.float32).requires_grad_(True)
    wanted = part(tensors, "grad.")

    loss = (_velocity(spec, model, tensors) - tensors["in.loss_target"]).square().mean()
    loss.backward()

    torch.testing.assert_close(loss.detach(), tensors["out.loss"].squeeze(), rtol=1e-5, atol=0)
    for original, expected in wanted.items():
        (place,) = spec.keys.to_library(original)
        found = model.get_parameter(place.name).grad
        assert found is not None
        assert (found - expected).abs().max() / expected.abs().max() <= 1e-4, original


def _spec(meta: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> Wan:
    path = folder / "dit.safetensors"
    save_file(part(tensors, "ckpt."), path, metadata={"wan.num_heads": str(meta["config"]["num_heads"])})
    return Wan.t2v_1_3b().with_weights(dit=path)


def _velocity(spec: Wan, model: torch.nn.Module, tensors: dict[str, Tensor], *, padded: bool = False) -> Tensor:
    text = pad_text([tensors[f"in.context_{i}"] for i in range(len(tensors["in.x"]))])
    conditions = WanConditions(text=pad(text, (0, 0, 0, 512 - text.shape[1])) if padded else text)
    return spec.denoiser().velocity(model, tensors["in.x"], tensors["in.t"] / 1000, conditions)
