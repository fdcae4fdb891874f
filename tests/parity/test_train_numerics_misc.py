"""Schedules of samples, shifts by resolution and the running mean of the loss have the reference's numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from musubi import Euler, ResolutionShift
from musubi.training.epoch_average import EpochAverage
from tests.parity.cases import vector_cases

CASES = vector_cases("train_numerics")
FLUX, QWEN = ResolutionShift(), ResolutionShift(tokens=(256, 8192), mu=(0.5, 0.9))


def of_kind(kind: str) -> pytest.MarkDecorator:
    cases = [case for case in CASES if case["kind"] == kind]
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


@of_kind("hv_sample_schedule")
def test_train_numerics_sample_schedule_of_a_fixed_shift(case: dict[str, Any]) -> None:
    sigmas = Euler(shift=case["shift"]).sigmas(case["steps"], tokens=1).tolist()

    assert sigmas == pytest.approx(case["sigmas"], rel=1e-5, abs=1e-7)
    assert [1000 * sigma for sigma in sigmas[:-1]] == pytest.approx(case["timesteps"], rel=1e-5)


@of_kind("flux_sample_schedule")
def test_train_numerics_sample_schedule_by_resolution(case: dict[str, Any]) -> None:
    mu, _ = FLUX.logit(case["image_seq_len"])
    shift = math.exp(mu) if case["shift_value"] is None else case["shift_value"]

    sigmas = Euler(shift=shift).sigmas(case["steps"], tokens=case["image_seq_len"]).tolist()

    assert sigmas == pytest.approx(case["timesteps"], rel=1e-5, abs=1e-7)


@of_kind("shift_mu")
def test_train_numerics_shift_by_resolution(case: dict[str, Any]) -> None:
    found = [levels.logit(case["packed_tokens"])[0] for levels in (FLUX, QWEN)]

    assert found == pytest.approx([case["flux_mu"], case["qwen_mu"]], rel=1e-5)


@of_kind("loss_recorder")
def test_train_numerics_running_mean_of_the_loss(case: dict[str, Any]) -> None:
    average = EpochAverage()

    means = [average.add(epoch, loss) for epoch, _, loss in case["events_epoch_step_loss"]]

    assert means == pytest.approx(case["moving_average"], rel=1e-5)


@of_kind("caption_resize")
def test_train_numerics_sizes_of_pictures_to_be_captioned(case: dict[str, Any]) -> None:
    pytest.skip("there is no tool that captions pictures")
