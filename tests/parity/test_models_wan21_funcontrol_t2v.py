"""Fun Control without a picture attends to no image tokens, and to all of the text.

The reference takes the first 257 tokens of the text for an image: its velocities and gradients are skipped, ours held
against the same weights in diffusers' class without the layers for images.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from musubi.architectures.wan.spec import TEXT_LENGTH, Wan
from tests.parity.cases import golden, golden_stems, part
from tests.parity.golden_wan import Tensors, check_gradients, check_velocity, conditions, loaded, wan_of

each_case = pytest.mark.parametrize("stem", golden_stems("models_wan21_funcontrol_t2v"))


@each_case
def test_models_wan21_funcontrol_t2v_equals_a_model_without_layers_for_images(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wan = wan_of(Wan.t2v_14b_control(), meta, tensors, tmp_path)
    stock = _without_images(wan)

    predicted = _velocity(stock, tensors)
    (predicted - tensors["in.loss_target"]).square().mean().backward()

    check_velocity(wan, tensors, predicted.detach(), within=2e-5)  # diffusers' waves of the time are in float32
    gradients = {name: value.grad for name, value in stock.named_parameters()}
    names = {original: wan.keys.to_library(original)[0].name for original in part(tensors, "ckpt.")}
    found = {original: grad for original, name in names.items() if (grad := gradients.get(name)) is not None}
    assert len(found) == len(gradients)
    check_gradients(wan, tensors, found)
    assert (predicted - tensors["out.pred"]).abs().max() > 0.1, "the reference's split is another one"


def _without_images(wan: Wan) -> WanTransformer3DModel:
    ours = loaded(wan)
    config = {**dict(getattr(ours, "config", {})), "image_dim": None, "added_kv_proj_dim": None}
    stock: WanTransformer3DModel = WanTransformer3DModel.from_config(config)
    known = stock.state_dict()
    stock.load_state_dict({name: value for name, value in ours.state_dict().items() if name in known})
    return stock


def _velocity(stock: WanTransformer3DModel, tensors: Tensors) -> torch.Tensor:
    text = conditions(tensors).text
    padded = torch.nn.functional.pad(text, (0, 0, 0, TEXT_LENGTH - text.shape[1]))
    x = torch.cat([tensors["in.x"], tensors["in.y"]], dim=1)
    predicted: torch.Tensor = stock(x, tensors["in.t"], padded, return_dict=False)[0]
    return predicted
