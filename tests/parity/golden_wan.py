"""Golden cases of Wan's transformers: the file of a case as a spec's weights, its inputs as conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from musubi.architectures.wan.denoiser import WanConditions, pad_text
from musubi.architectures.wan.spec import Wan
from tests.parity.cases import part

Tensors = dict[str, Tensor]


def wan_of(wan: Wan, meta: dict[str, Any], tensors: Tensors, folder: Path) -> Wan:
    """Return a spec whose first transformer is a case's checkpoint."""
    path = folder / "dit.safetensors"
    save_file(part(tensors, "ckpt."), path, metadata={"wan.num_heads": str(meta["config"]["num_heads"])})
    return wan.with_weights(**{wan.experts[0].component: path})


def loaded(wan: Wan) -> nn.Module:
    """Return the transformer in float32."""
    return wan.denoiser().load(wan.experts[0], device=torch.device("cpu"), dtype=torch.float32)


def conditions(tensors: Tensors, *, places: bool = False) -> WanConditions:
    """Return a case's texts, and its pictures' latents and features if it has any."""
    items = len(tensors["in.x"])
    clip = tensors.get("in.clip_fea")
    return WanConditions(
        text=pad_text([tensors[f"in.context_{i}"] for i in range(items)]),
        beside=tensors.get("in.y"),
        clip=None if clip is None else clip.reshape(items, -1, clip.shape[-1]),
        places=tensors["in.f_indices"] if places else None,
    )


def velocity(wan: Wan, model: nn.Module, tensors: Tensors, cond: WanConditions | None = None) -> Tensor:
    """Return what the model predicts for a case's inputs."""
    return wan.denoiser().velocity(model, tensors["in.x"], tensors["in.t"] / 1000, cond or conditions(tensors))


def check_velocity(
    wan: Wan, tensors: Tensors, expected: Tensor, cond: WanConditions | None = None, *, within: float = 1e-5
) -> None:
    """Compare a prediction with the reference's."""
    with torch.no_grad():
        predicted = velocity(wan, loaded(wan), tensors, cond)
    assert predicted.dtype == torch.float32
    assert (predicted - expected).abs().max() <= within


def check_gradients(wan: Wan, tensors: Tensors, expected: Tensors, loss: Tensor | None = None) -> None:
    """Compare the gradients of the mean squared distance from the target, to 1e-4 of the largest of a tensor."""
    model = loaded(wan).requires_grad_(True)
    found = (velocity(wan, model, tensors) - tensors["in.loss_target"]).square().mean()
    found.backward()

    if loss is not None:
        torch.testing.assert_close(found.detach(), loss.squeeze(), rtol=1e-5, atol=0)
    for original, wanted in expected.items():
        (place,) = wan.keys.to_library(original)
        gradient = model.get_parameter(place.name).grad
        assert gradient is not None, original
        assert (gradient - wanted).abs().max() <= 1e-4 * wanted.abs().max(), original
