from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler, OneCycleLR

from musubi.core.errors import ConfigError
from musubi.optim.schedules import Schedule
from musubi.optim.torch_schedule import TorchSchedule


def _played(kind: type[LRScheduler], peak: float, steps: int, **arguments: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak, momentum=0.9)
    scheduler = kind(optimizer, **arguments)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def _falling_by(gamma: float) -> type[LRScheduler]:
    class Mine(ExponentialLR):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            super().__init__(optimizer, gamma=gamma)

    return Mine


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("StepLR", {"step_size": 7, "gamma": 0.5}),
        ("MultiStepLR", {"milestones": (3, 9), "gamma": 0.1}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("CosineAnnealingWarmRestarts", {"T_0": 8}),
        ("torch.optim.lr_scheduler.LinearLR", {"total_iters": 12}),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": 5}),
    ],
)
def test_factors_are_the_rates_that_torch_plays(name: str, arguments: dict[str, Any]) -> None:
    schedule = TorchSchedule(name=name, arguments=arguments)
    kind = getattr(torch.optim.lr_scheduler, name.rpartition(".")[2])

    assert [schedule.factor(step, 30) for step in range(30)] == _played(kind, 1.0, 30, **arguments)


def test_factors_may_be_asked_for_in_any_order() -> None:
    schedule = TorchSchedule(name="ExponentialLR", arguments={"gamma": 0.75})
    later = schedule.factor(20, 30)

    assert schedule.factor(3, 30) == pytest.approx(0.75**3)
    assert schedule.factor(20, 30) == later == pytest.approx(0.75**20)


def test_the_length_of_the_run_can_be_an_argument() -> None:
    schedule = TorchSchedule(name="CosineAnnealingLR", arguments={"T_max": "total"})

    for total in (50, 80):
        wanted = _played(CosineAnnealingLR, 1.0, total, T_max=total)
        assert [schedule.factor(step, total) for step in range(total)] == wanted


def test_absolute_rates_belong_to_a_peak() -> None:
    schedule = TorchSchedule(name="OneCycleLR", arguments={"max_lr": 2e-4, "total_steps": "total"}, peak=1e-4)
    wanted = _played(OneCycleLR, 1e-4, 20, max_lr=2e-4, total_steps=25)

    assert [1e-4 * schedule.factor(step, 25) for step in range(20)] == pytest.approx(wanted)


def test_a_class_itself_will_do() -> None:
    schedule = TorchSchedule(name=CosineAnnealingLR, arguments={"T_max": 10})  # type: ignore[arg-type]

    assert schedule.name == "torch.optim.lr_scheduler.CosineAnnealingLR"
    assert schedule.factor(10, 10) == pytest.approx(0)


def test_a_file_may_name_a_class_only_with_the_programs_leave() -> None:
    schedule = TorchSchedule(name="MultiStepLR", arguments={"milestones": (3, 9), "gamma": 0.1}, peak=1e-4)
    text = schedule.to_toml()

    with pytest.raises(ConfigError, match=r"no schedule is called 'torch' .*plugins=\[TorchSchedule\]"):
        Schedule.from_toml(text)
    assert Schedule.from_toml(text, plugins=[TorchSchedule]) == schedule


def test_a_name_that_a_notebook_gives_to_another_class_means_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = types.ModuleType("cell")
    monkeypatch.setitem(sys.modules, "cell", cell)
    schedule = TorchSchedule(name="cell.Mine")

    for gamma in (0.5, 0.25):
        cell.Mine = _falling_by(gamma)  # type: ignore[attr-defined]

        assert schedule.factor(2, 10) == gamma**2


def test_what_watches_a_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"arguments: ReduceLROnPlateau does not work.*follow from its steps alone"):
        TorchSchedule(name="ReduceLROnPlateau").factor(3, 10)


def test_the_end_of_a_scheduler_is_the_end() -> None:
    schedule = TorchSchedule(name="OneCycleLR", arguments={"max_lr": 1.0, "total_steps": 5})

    with pytest.raises(ConfigError, match=r"OneCycleLR does not work.*Tried to step 6 times"):
        schedule.factor(6, 10)


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(ConfigError, match=r"has no class StepLRR; did you mean 'StepLR'"):
        TorchSchedule(name="StepLRR").factor(0, 10)


def test_it_has_no_warm_up_of_ours() -> None:
    with pytest.raises(ConfigError, match="warmup: cannot be added to a scheduler of torch"):
        TorchSchedule(name="StepLR", arguments={"step_size": 3}, warmup=10)
