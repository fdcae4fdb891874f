"""The learning rate of every update is the reference's."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from musubi.core.errors import ConfigError
from musubi.optim.adafactor import Adafactor
from musubi.optim.custom import CustomOptimizer
from musubi.optim.decays import CosineRestarts, InverseSqrt, Polynomial, Rex
from musubi.optim.own_schedule import schedule_issue
from musubi.optim.schedules import Constant, Cosine, Linear, Schedule
from musubi.optim.stages import PiecewiseConstant, WarmupStableDecay
from musubi.optim.torch_schedule import TorchSchedule
from tests.parity.cases import vector_cases

CASES = vector_cases("train_lr_schedules")
_TOTAL = 100
_BROKEN = "cosine_warmup_with_min_lr"  # in every case: it is built with an argument that it does not know


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_train_lr_schedules_rates_equal_the_reference(case: dict[str, Any]) -> None:
    arguments = case["args"]
    if "error" in case:
        _works_or_is_refused(arguments, case["error"], case["num_processes"])
        return
    schedule, peak = _schedule(arguments), arguments.get("learning_rate", 1e-3)

    # The reference's scheduler takes a step for every process, so that a warm-up counted in steps ends after fewer
    # updates (spec/training.md 8.1, 9); by its own count of steps it is the same curve.
    processes = case["num_processes"]
    for update, expected in case["lr"].items():
        step, total = processes * int(update), processes * _TOTAL
        if step >= total and schedule.warmup_steps(total) >= total:
            continue  # nothing is left of such a run, and its formulas disagree about where they are then
        found = peak * schedule.factor(step, total)
        if _is_rexs_first_update(schedule, step, total):
            assert found == pytest.approx(peak * schedule.min_ratio)  # type: ignore[attr-defined]
        else:
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-11), f"update {update}"


def _is_rexs_first_update(schedule: Schedule, step: int, total: int) -> bool:
    """Say whether the reference's formula wraps around: before the second step of a warm-up (8.1, 10)."""
    return isinstance(schedule, Rex) and step == 0 and schedule.warmup_steps(total) > 1


def _works_or_is_refused(arguments: Mapping[str, Any], error: str, processes: int) -> None:
    """Show what is here of options that the reference does not take."""
    name, kind, extra = arguments.get("lr_scheduler", "constant"), arguments.get("lr_scheduler_type"), _extra(arguments)
    if name.startswith("adafactor") and not kind:
        assert schedule_issue(Adafactor(relative_step=True), Constant(warmup=10)) is not None
        return
    refused = _as_in_a_file(name, kind, error, extra)
    if refused is not None:
        with pytest.raises(ConfigError):
            Schedule.from_dict(refused, plugins=[TorchSchedule]).factor(111 * processes, _TOTAL)
    elif _lowest(arguments) > 1 or _end(arguments, extra) > 1:  # the end would be above the beginning
        with pytest.raises(ConfigError, match="min_ratio"):
            _schedule(arguments)
    else:  # it works here: a constant rate may warm up, no minimum is 0, an option has one name only
        schedule = _schedule({**arguments, "lr_scheduler": "cosine_with_min_lr"} if name == _BROKEN else arguments)
        factors = [schedule.factor(step, processes * _TOTAL) for step in range(processes * _TOTAL)]
        assert all(0 <= factor <= 1 for factor in factors)
        assert name != "constant" or factors[0] == 0 < factors[-1]


def _as_in_a_file(name: str, kind: str | None, error: str, extra: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a file would say that is refused here, too, None where ours has no such difficulty."""
    if kind or name == "reduce_lr_on_plateau":  # refused at the step at which the reference's fails
        return {"kind": "torch", "name": kind or "ReduceLROnPlateau", "arguments": dict(extra)}
    if name not in _SCHEDULES and name != _BROKEN:
        return {"kind": name}
    if name == "piecewise_constant" and "step_rules" not in extra:
        return {"kind": name}
    if "unexpected keyword argument" in error and extra:
        return {"kind": "cosine" if "cosine" in name else name.removesuffix("_with_warmup"), **extra}
    return None


def _schedule(arguments: Mapping[str, Any]) -> Schedule:
    extra = _extra(arguments)
    optimizer = CustomOptimizer(name=arguments.get("optimizer_type", "AdamW"))
    if optimizer.own_schedule:
        assert schedule_issue(optimizer, Cosine()) is not None
        return Constant()
    if arguments.get("lr_scheduler_type"):
        peak = arguments.get("learning_rate", 1e-3)
        return TorchSchedule(name=arguments["lr_scheduler_type"], arguments=extra, peak=peak)
    return _SCHEDULES[arguments.get("lr_scheduler", "constant")](arguments, extra)


def _extra(arguments: Mapping[str, Any]) -> dict[str, Any]:
    pairs = (given.split("=") for given in arguments.get("lr_scheduler_args") or ())
    return {name: ast.literal_eval(value) for name, value in pairs}


def _warmup(arguments: Mapping[str, Any]) -> Any:
    return arguments.get("lr_warmup_steps", 0)


def _lowest(arguments: Mapping[str, Any], default: float = 0.0) -> float:
    ratio = arguments.get("lr_scheduler_min_lr_ratio")
    return default if ratio is None else ratio


def _end(arguments: Mapping[str, Any], extra: Mapping[str, Any]) -> float:
    """Return the last rate of the reference's polynomial as a share of the first."""
    return float(extra.get("lr_end", 1e-7) / arguments.get("learning_rate", 1e-3))


def _halves(arguments: Mapping[str, Any], extra: Mapping[str, Any]) -> float:
    return float(2 * extra.get("num_cycles", arguments.get("lr_scheduler_num_cycles", 1) / 2))


def _stages(arguments: Mapping[str, Any], extra: Mapping[str, Any]) -> Schedule:
    return WarmupStableDecay(
        warmup=_warmup(arguments),
        decay=arguments.get("lr_decay_steps", 0),
        min_ratio=_lowest(arguments),
        shape=extra.get("decay_type", "cosine"),
        warmup_shape=extra.get("warmup_type", "linear"),
        halves=_halves(arguments, extra),
    )


_Make = Callable[[Mapping[str, Any], Mapping[str, Any]], Schedule]
_SCHEDULES: Mapping[str, _Make] = MappingProxyType(
    {
        "constant": lambda given, _: Constant(warmup=_warmup(given)),
        "constant_with_warmup": lambda given, _: Constant(warmup=_warmup(given)),
        "linear": lambda given, _: Linear(warmup=_warmup(given)),
        # The reference does not hand its number of cycles on to this one (spec/training.md 4.2).
        "cosine": lambda given, extra: Cosine(warmup=_warmup(given), halves=2 * extra.get("num_cycles", 0.5)),
        "cosine_with_restarts": lambda given, _: CosineRestarts(
            warmup=_warmup(given), cycles=given.get("lr_scheduler_num_cycles", 1)
        ),
        "polynomial": lambda given, extra: Polynomial(
            warmup=_warmup(given),
            power=given.get("lr_scheduler_power", 1),
            min_ratio=_end(given, extra),
        ),
        "inverse_sqrt": lambda given, _: InverseSqrt(
            warmup=_warmup(given), timescale=given.get("lr_scheduler_timescale")
        ),
        "cosine_with_min_lr": lambda given, extra: Cosine(
            warmup=_warmup(given),
            min_ratio=_lowest(given, extra.get("min_lr", 0.0) / given.get("learning_rate", 1e-3)),
            halves=_halves(given, extra),
        ),
        "warmup_stable_decay": _stages,
        "rex": lambda given, extra: Rex(
            warmup=_warmup(given),
            min_ratio=_lowest(given, 0.01),
            alpha=extra.get("rex_alpha", 0.1),
            beta=extra.get("rex_beta", 0.9),
        ),
        "piecewise_constant": lambda _, extra: PiecewiseConstant.parse(extra["step_rules"]),
    }
)


def test_train_lr_schedules_a_warm_up_is_as_long_on_any_number_of_processes() -> None:
    assert Constant(warmup=10).factor(5, _TOTAL) == 0.5
    assert Constant(warmup=10).factor(9, _TOTAL) < 1 <= Constant(warmup=10).factor(10, _TOTAL)
