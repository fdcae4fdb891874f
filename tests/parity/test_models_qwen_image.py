"""Qwen-Image's denoiser predicts what the reference does, with pictures to change and without, in every edition.

Cases are ``models_qwen_image``, ``models_qwen_edit`` and whatever begins like them; Edit-2511 is told that pictures
have no noise. Weights go in as a file, inputs as a batch of the cache.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from musubi import QwenImage
from musubi.architectures.qwen_image.denoiser import QwenImageDenoiser
from musubi.architectures.qwen_image.tasks import Task
from musubi.batch import RAGGED, Batch
from tests.parity.cases import golden, golden_stems, part

STEMS = [*golden_stems("models_qwen_image"), *golden_stems("models_qwen_edit")]
each_case = pytest.mark.parametrize("stem", STEMS)


@each_case
def test_models_qwen_image_velocity_equals_the_reference(stem: str, tmp_path: Path) -> None:
    denoiser, model, tensors = _case(stem, tmp_path)

    with torch.no_grad():
        predicted = _velocity(denoiser, model, tensors)

    assert predicted.dtype == torch.float32
    assert (predicted - tensors["out.pred"]).abs().max() <= 2e-5
    assert (predicted - tensors["out.pred_masked_batch"]).abs().max() <= 2e-5


@each_case
def test_models_qwen_image_padding_counts_for_nothing(stem: str, tmp_path: Path) -> None:
    denoiser, model, tensors = _case(stem, tmp_path)
    wrong = tensors.get("out.pred_v0_2_13_padding_not_masked")

    with torch.no_grad():
        predicted = _velocity(denoiser, model, tensors)

    assert wrong is None or (predicted - wrong).abs().max() > 1e-4


@each_case
def test_models_qwen_image_gradients_equal_the_reference(stem: str, tmp_path: Path) -> None:
    denoiser, model, tensors = _case(stem, tmp_path)
    model.requires_grad_(True)

    loss = (_velocity(denoiser, model, tensors) - tensors["in.target"]).square().mean()
    loss.backward()

    assert_close(loss.detach(), tensors["out.loss"], rtol=1e-5, atol=0)
    for name, expected in part(tensors, "grad.").items():
        gradient = model.get_parameter(name).grad
        assert gradient is not None, name
        assert (gradient - expected).abs().max() <= 1e-4 * expected.abs().max(), name


def _case(stem: str, folder: Path) -> tuple[QwenImageDenoiser, nn.Module, dict[str, Tensor]]:
    meta, tensors = golden(stem)
    config: dict[str, Any] = meta["config"]
    path = folder / "dit.safetensors"
    told = {"qwen_image.axes_dims_rope": json.dumps(config["axes_dims_rope"])}
    save_file(part(tensors, "ckpt."), path, metadata=told)
    shown = any("control" in name for name in tensors)
    task: Task = "edit_2511" if config.get("zero_cond_t") else "edit_2509" if shown else "text_to_image"
    spec = QwenImage(task=task).with_weights(dit=path)
    denoiser = spec.denoiser()
    return denoiser, denoiser.load(spec.experts[0], device=torch.device("cpu"), dtype=torch.float32), tensors


def _velocity(denoiser: QwenImageDenoiser, model: nn.Module, tensors: dict[str, Tensor]) -> Tensor:
    inputs = part(tensors, "in.")
    texts = [inputs[name] for name in sorted(inputs) if name.startswith("vl_embed_")]
    stacked = {name: tensor for name, tensor in inputs.items() if name.startswith("latents_control_")}
    batch = Batch(items=("a", "b"), bucket="", stacked=stacked, ragged={f"{RAGGED}vl_embed": tuple(texts)})
    return denoiser.velocity(model, inputs["noisy_latents"], inputs["timesteps"], denoiser.conditions(batch))
