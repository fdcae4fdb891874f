"""Wan 2.2 TI2V gives the velocities of its class, with one time for all tokens and with a time for each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musubi.architectures.wan.spec import Wan
from tests.parity.cases import golden, golden_stems, part
from tests.parity.golden_wan import check_gradients, check_velocity, conditions, loaded, wan_of

each_case = pytest.mark.parametrize("stem", golden_stems("models_wan22_ti2v5b"))


@each_case
def test_models_wan22_ti2v5b_velocity_equals_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)

    check_velocity(wan_of(Wan.ti2v_5b(), meta, tensors, tmp_path), tensors, tensors["out.pred"])


@each_case
def test_models_wan22_ti2v5b_gradients_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wan = wan_of(Wan.ti2v_5b(), meta, tensors, tmp_path)

    check_gradients(wan, tensors, part(tensors, "grad."), tensors["out.loss"])


@each_case
def test_models_wan22_ti2v5b_takes_a_time_for_every_token(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wan = wan_of(Wan.ti2v_5b(), meta, tensors, tmp_path)
    text = conditions(tensors).text

    with torch.no_grad():
        predicted = loaded(wan)(tensors["in.x"], tensors["in.t_per_token"], text, return_dict=False)[0]

    assert (predicted - tensors["out.pred_per_token_t"]).abs().max() <= 1e-5
