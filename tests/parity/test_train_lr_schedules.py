"""The learning rate of every update is the reference's."""

from __future__ import annotations

from typing import Any

import pytest

from musubi.core.errors import ConfigError
from musubi.optim.schedules import Constant, Cosine, Linear, Schedule
from tests.parity.cases import vector, vector_stems

CASES = [case for stem in vector_stems("train_lr_schedules") for case in vector(stem)["cases"]]
_TOTAL, _PEAK = 100, 1e-3
_OURS = {"constant", "constant_with_warmup", "linear", "cosine", "cosine_with_min_lr"}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_train_lr_schedules_rates_equal_the_reference(case: dict[str, Any]) -> None:
    arguments = case["args"]
    _skip_what_is_not_ours(case)

    schedule = _schedule(arguments)

    for update, expected in case["lr"].items():
        found = _PEAK * schedule.factor(int(update), _TOTAL)
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-11), f"update {update}"


def _skip_what_is_not_ours(case: dict[str, Any]) -> None:
    arguments = case["args"]
    name = arguments.get("lr_scheduler", "constant")
    if "error" in case:
        pytest.skip("the reference refuses this option; here it is no option, or works")
    if name not in _OURS or "lr_scheduler_type" in arguments or "optimizer_type" in arguments:
        pytest.skip("other schedules and schedule-free optimisers arrive with issue 4")
    if name == "cosine_with_min_lr" and arguments.get("lr_scheduler_num_cycles", 1) != 1:
        pytest.skip("several cycles arrive with issue 4")
    counted = isinstance(arguments.get("lr_warmup_steps", 0), int) and arguments.get("lr_warmup_steps", 0)
    if counted and case["num_processes"] > 1:
        pytest.skip("a warm-up counted in steps is shortened by the number of processes (spec/training.md 8.1, 9)")


def _schedule(arguments: dict[str, Any]) -> Schedule:
    warmup = arguments.get("lr_warmup_steps", 0)
    name = arguments.get("lr_scheduler", "constant")
    if name.startswith("constant"):
        return Constant(warmup=warmup)
    if name == "linear":
        return Linear(warmup=warmup)
    lowest = arguments.get("lr_scheduler_min_lr_ratio") if name == "cosine_with_min_lr" else None
    return Cosine(warmup=warmup, min_ratio=lowest or 0.0)  # plain cosine ignores the option in the reference


def test_train_lr_schedules_a_constant_rate_may_warm_up_here() -> None:
    assert Constant(warmup=10).factor(5, _TOTAL) == 0.5
    with pytest.raises(ConfigError):
        Constant(warmup=-1)
