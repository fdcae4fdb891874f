"""The transformer gives the reference's velocities and gradients, from checkpoints in the original layout."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from torch.nn.functional import pad

from musubi.architectures.wan.spec import TEXT_LENGTH, Wan
from tests.parity.cases import golden, golden_stems, part
from tests.parity.golden_wan import check_gradients, check_velocity, conditions, wan_of

each_case = pytest.mark.parametrize("stem", golden_stems("models_wan21_t2v"))


@each_case
@pytest.mark.parametrize("padded", [False, True], ids=["short", "padded"])
def test_models_wan21_t2v_velocity_equals_the_reference(stem: str, padded: bool, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wan, given = wan_of(Wan.t2v_1_3b(), meta, tensors, tmp_path), conditions(tensors)
    if padded:
        given = attrs.evolve(given, text=pad(given.text, (0, 0, 0, TEXT_LENGTH - given.text.shape[1])))

    check_velocity(wan, tensors, tensors["out.pred"], given)


@each_case
def test_models_wan21_t2v_gradients_equal_the_reference(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wan = wan_of(Wan.t2v_1_3b(), meta, tensors, tmp_path)

    check_gradients(wan, tensors, part(tensors, "grad."), tensors["out.loss"])


@each_case
def test_models_wan21_t2v_frames_have_their_places_in_time(stem: str, tmp_path: Path) -> None:
    meta, tensors = golden(stem)
    wan = wan_of(Wan.t2v_1_3b(), meta, tensors, tmp_path)

    check_velocity(wan, tensors, tensors["out.pred_f_indices"], conditions(tensors, places=True))
