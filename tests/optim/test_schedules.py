from __future__ import annotations

import math
import sys

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from musubi.core.errors import ConfigError
from musubi.core.kinds import KINDS, find
from musubi.optim.decays import CosineRestarts, Polynomial, Rex
from musubi.optim.schedules import Constant, Cosine, Linear, Schedule
from musubi.optim.stages import WarmupStableDecay
from tests.optim.curves import KINDS_DRAWN, schedules, warming


@given(schedule=schedules, total=st.integers(1, 200), data=st.data())
def test_every_factor_of_a_run_lies_between_zero_and_one(schedule: Schedule, total: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, total - 1))

    assert 0 <= schedule.factor(step, total) <= 1


@given(schedule=schedules)
def test_a_schedule_survives_toml(schedule: Schedule) -> None:
    again = Schedule.from_toml(schedule.to_toml())

    assert again == schedule
    assert type(again.warmup) is type(schedule.warmup)


@given(schedule=schedules, totals=st.lists(st.integers(1, 200), min_size=2, max_size=4), step=st.integers(0, 60))
def test_a_factor_follows_from_the_step_and_the_length_alone(schedule: Schedule, totals: list[int], step: int) -> None:
    fresh = Schedule.from_toml(schedule.to_toml())
    for total in totals:  # as a run does whose length is changed again and again
        schedule.factor(step, total)

    assert schedule.factor(step, totals[0]) == fresh.factor(step, totals[0])


@settings(deadline=None)  # torch is imported on the way
@given(schedule=schedules, total=st.integers(101, 200))
def test_after_a_change_of_length_the_rest_is_that_of_a_run_of_that_length(schedule: Schedule, total: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    before = schedule.build(optimizer, 100)
    for _ in range(60):
        optimizer.step()
        before.step()

    after = schedule.build(optimizer, total)
    after.load_state_dict(before.state_dict())
    optimizer.step()
    after.step()

    assert optimizer.param_groups[0]["lr"] == schedule.factor(61, total)


def test_every_kind_that_a_file_can_name_is_drawn() -> None:
    assert {*KINDS["schedule"]} == {schedule.kind for schedule in KINDS_DRAWN}
    assert all(find("schedule", schedule.kind) is schedule for schedule in KINDS_DRAWN)


@given(schedule=warming, total=st.integers(120, 400))
def test_a_warm_up_rises_to_the_peak(schedule: Schedule, total: int) -> None:
    if isinstance(schedule, WarmupStableDecay):
        schedule = schedule.replace(decay=0)  # that it does not begin before the warm-up has ended
    if isinstance(schedule, Rex):
        schedule = schedule.replace(alpha=0.5, beta=0.5)  # begin at the peak
    warmup = schedule.warmup_steps(total)

    factors = [schedule.factor(step, total) for step in range(warmup + 1)]

    assert factors == sorted(factors)
    assert factors[-1] == pytest.approx(1)


@given(warmup=st.floats(0, 0.99), total=st.integers(100, 10_000), times=st.integers(2, 8))
def test_a_share_is_the_same_part_of_a_run_of_any_length(warmup: float, total: int, times: int) -> None:
    schedule = Cosine(warmup=warmup)

    assert schedule.warmup_steps(total) / total == pytest.approx(warmup, abs=1 / total)
    assert schedule.warmup_steps(times * total) == pytest.approx(times * schedule.warmup_steps(total), abs=times)


@given(kind=st.sampled_from([Linear, CosineRestarts, Polynomial, Rex]), data=st.data(), total=st.integers(101, 300))
def test_a_fall_ends_at_the_minimum(kind: type[Schedule], data: st.DataObject, total: int) -> None:
    schedule = data.draw(KINDS_DRAWN[kind])

    assert schedule.factor(total, total) == pytest.approx(schedule.min_ratio)  # type: ignore[attr-defined]


def test_warm_up_starts_at_zero_and_reaches_the_peak() -> None:
    assert [Constant(warmup=4).factor(step, 10) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_a_share_of_the_run_is_the_same_as_its_steps() -> None:
    shares = [Cosine(warmup=0.1).factor(step, 200) for step in range(200)]

    assert shares == [Cosine(warmup=20).factor(step, 200) for step in range(200)]


@pytest.mark.parametrize("schedule", [Linear, Cosine])
def test_the_end_is_the_minimum(schedule: type[Linear | Cosine]) -> None:
    assert math.isclose(schedule(warmup=10, min_ratio=0.1).factor(100, 100), 0.1)
    assert schedule(warmup=10).factor(100, 100) == 0


def test_two_halves_of_a_cosine_come_back_to_the_peak() -> None:
    assert [Cosine(halves=2).factor(step, 100) for step in (0, 50, 100)] == [1, 0, 1]


@pytest.mark.parametrize("warmup", [-1, 1.0, 1.5, -0.1, True])
def test_an_impossible_warm_up_is_refused(warmup: float) -> None:
    with pytest.raises(ConfigError, match="warmup"):
        Constant(warmup=warmup)


def test_torchs_form_has_the_same_rates_and_resumes() -> None:
    schedule = Cosine(warmup=3, min_ratio=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = schedule.build(optimizer, 10)
    rates: list[float] = []
    for step in range(10):
        if step == 5:
            state = scheduler.state_dict()
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
            scheduler = schedule.build(optimizer, 10)
            scheduler.load_state_dict(state)
            optimizer.param_groups[0]["lr"] = scheduler.get_last_lr()[0]
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    assert rates == [2.0 * schedule.factor(step, 10) for step in range(10)]


def test_a_plot_shows_the_factor_of_every_step() -> None:
    schedule = Cosine(warmup=10)

    figure = schedule.plot(50)

    line = figure.axes[0].lines[0]
    assert isinstance(figure, Figure)
    assert numpy.array_equal(line.get_xdata(), range(1, 51))
    assert numpy.array_equal(line.get_ydata(), [schedule.factor(step, 50) for step in range(50)])


def test_a_plot_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(ConfigError, match=r"musubi-trainer\[plots\]"):
        Constant().plot(10)
