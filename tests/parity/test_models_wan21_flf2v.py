"""FLF2V attends to the tokens of both pictures as image tokens, as Wan's authors and diffusers have it.

The reference takes the second picture's for text: its velocities and gradients are skipped, ours held against the
official split's velocity, which the case has, and against the gradients of diffusers' own class.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from musubi.architectures.wan.spec import TEXT_LENGTH, Wan
from tests.parity.cases import golden, golden_stems, part
from tests.parity.golden_wan import Tensors, check_gradients, check_velocity, conditions, loaded, wan_of

each_case = pytest.mark.parametrize("stem", golden_stems("models_wan21_flf2v"))


@each_case
def test_models_wan21_flf2v_velocity_equals_the_official_split(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)

    check_velocity(wan_of(Wan.flf2v_14b(), meta, tensors, tmp_path), tensors, tensors["out.pred_official_split"])


@each_case
def test_models_wan21_flf2v_gradients_equal_those_of_diffusers(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wan = wan_of(Wan.flf2v_14b(), meta, tensors, tmp_path)

    check_gradients(wan, tensors, _gradients_of_diffusers(wan, tensors))


@each_case
def test_models_wan21_flf2v_the_split_matters(stem: str) -> None:
    _, tensors = golden(stem)

    assert (tensors["out.pred"] - tensors["out.pred_official_split"]).abs().max() > 0.1


def _gradients_of_diffusers(wan: Wan, tensors: Tensors) -> Tensors:
    ours = loaded(wan)
    stock: WanTransformer3DModel = WanTransformer3DModel.from_config(ours.config)
    stock.load_state_dict(ours.state_dict())
    text = conditions(tensors).text
    padded = torch.nn.functional.pad(text, (0, 0, 0, TEXT_LENGTH - text.shape[1]))
    x = torch.cat([tensors["in.x"], tensors["in.y"]], dim=1)
    predicted = stock(x, tensors["in.t"], padded, tensors["in.clip_fea"], return_dict=False)[0]
    (predicted - tensors["in.loss_target"]).square().mean().backward()
    gradients = {name: value.grad for name, value in stock.named_parameters()}
    names = {original: wan.keys.to_library(original)[0].name for original in part(tensors, "ckpt.")}
    return {original: grad for original, name in names.items() if (grad := gradients[name]) is not None}
