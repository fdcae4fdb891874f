"""An expert of Wan 2.2 T2V gives the reference's velocities and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest

from musubi.architectures.wan.spec import Wan
from tests.parity.cases import golden, golden_stems, part
from tests.parity.golden_wan import check_gradients, check_velocity, wan_of

each_case = pytest.mark.parametrize("stem", golden_stems("models_wan22_t2v"))


@each_case
def test_models_wan22_t2v_velocity_equals_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)

    check_velocity(wan_of(Wan.t2v_a14b(), meta, tensors, tmp_path), tensors, tensors["out.pred"])


@each_case
def test_models_wan22_t2v_gradients_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wan = wan_of(Wan.t2v_a14b(), meta, tensors, tmp_path)

    check_gradients(wan, tensors, part(tensors, "grad."), tensors["out.loss"])
