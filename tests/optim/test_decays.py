from __future__ import annotations

import pytest

from musubi.core.errors import ConfigError
from musubi.optim.decays import CosineRestarts, InverseSqrt, Polynomial, Rex
from musubi.optim.schedules import Cosine, Linear, Schedule


def _factors(schedule: Schedule, total: int = 100) -> list[float]:
    return [schedule.factor(step, total) for step in range(total)]


def test_restarts_begin_at_the_peak_and_repeat() -> None:
    factors = _factors(CosineRestarts(cycles=4, min_ratio=0.1))

    assert [factors[step] for step in (0, 25, 50, 75)] == [1, 1, 1, 1]
    assert factors[:25] == pytest.approx(factors[50:75])
    assert factors[24] == pytest.approx(Cosine(min_ratio=0.1).factor(96, 100))
    assert CosineRestarts(cycles=4, min_ratio=0.1).factor(100, 100) == 0.1


def test_a_power_of_one_is_a_line() -> None:
    assert _factors(Polynomial(min_ratio=0.2, warmup=7)) == _factors(Linear(min_ratio=0.2, warmup=7))


def test_the_inverse_root_halves_over_three_times_its_scale() -> None:
    assert InverseSqrt(timescale=20).factor(60, 100) == 0.5
    assert InverseSqrt(warmup=20).factor(80, 100) == 0.5
    assert InverseSqrt().factor(30_000, 10) == 0.5
    assert InverseSqrt(timescale=20, min_ratio=0.5).factor(60, 100) == 0.75


def test_the_inverse_root_does_not_depend_on_the_length_of_the_run() -> None:
    assert _factors(InverseSqrt(warmup=5), 50) == _factors(InverseSqrt(warmup=5), 100)[:50]


def test_rex_begins_at_its_minimum_and_never_jumps_down() -> None:
    factors = _factors(Rex(warmup=20, min_ratio=0.1))

    assert factors[:2] == [0.1, 0.1]
    assert factors[:21] == sorted(factors[:21])
    assert factors[20] == 1
    assert factors[20:] == sorted(factors[20:], reverse=True)


def test_rex_begins_its_fall_where_alpha_and_beta_say() -> None:
    assert Rex(alpha=0.5, beta=0.75, min_ratio=0.5).factor(0, 100) == pytest.approx(0.5 + 0.5 / 1.25)


def test_rex_stays_high_longer_than_a_line() -> None:
    rex, line = _factors(Rex(min_ratio=0.0)), _factors(Linear())

    assert all(high > low for high, low in zip(rex[1:], line[1:], strict=True))


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (CosineRestarts, {"cycles": 0}),
        (Polynomial, {"power": 0.0}),
        (InverseSqrt, {"timescale": 0}),
        (Rex, {"alpha": 0.0}),
        (Rex, {"min_ratio": 1.5}),
    ],
)
def test_impossible_settings_are_refused(schedule: type[Schedule], values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        schedule(**values)
