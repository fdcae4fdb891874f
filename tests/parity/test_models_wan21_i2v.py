"""Wan 2.1 I2V sees a picture's latents and CLIP's features as in the reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from musubi.architectures.wan.spec import Wan
from tests.parity.cases import golden, golden_stems, part
from tests.parity.golden_wan import check_gradients, check_velocity, conditions, wan_of

each_case = pytest.mark.parametrize("stem", golden_stems("models_wan21_i2v"))


@each_case
def test_models_wan21_i2v_velocity_equals_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)

    check_velocity(wan_of(Wan.i2v_14b(), meta, tensors, tmp_path), tensors, tensors["out.pred"])


@each_case
def test_models_wan21_i2v_gradients_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wan = wan_of(Wan.i2v_14b(), meta, tensors, tmp_path)

    check_gradients(wan, tensors, part(tensors, "grad."), tensors["out.loss"])


@each_case
def test_models_wan21_i2v_frames_have_their_places_in_time(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wan = wan_of(Wan.i2v_14b(), meta, tensors, tmp_path)

    check_velocity(wan, tensors, tensors["out.pred_f_indices"], conditions(tensors, places=True))
