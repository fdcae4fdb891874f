from __future__ import annotations

from typing import Literal

import pytest

from musubi.core.errors import ConfigError
from musubi.optim.stages import PiecewiseConstant, WarmupStableDecay

_SHAPES: tuple[Literal["linear", "cosine", "1-sqrt"], ...] = ("linear", "cosine", "1-sqrt")


@pytest.mark.parametrize("shape", _SHAPES)
def test_three_stages_follow_one_another(shape: Literal["linear", "cosine", "1-sqrt"]) -> None:
    schedule = WarmupStableDecay(warmup=10, decay=20, min_ratio=0.1, shape=shape, warmup_shape=shape)
    factors = [schedule.factor(step, 100) for step in range(101)]

    assert factors[0] == factors[100] == pytest.approx(0.1)
    assert factors[:11] == sorted(factors[:11])
    assert set(factors[10:81]) == {1.0}
    assert factors[80:] == sorted(factors[80:], reverse=True)


def test_a_longer_run_only_stays_longer_at_the_peak() -> None:
    schedule = WarmupStableDecay(warmup=10, decay=20)

    assert [schedule.factor(s, 100) for s in range(80)] == [schedule.factor(s, 200) for s in range(80)]
    assert [schedule.factor(s, 100) for s in range(80, 100)] == [schedule.factor(s, 200) for s in range(180, 200)]


def test_without_a_decay_the_peak_holds_to_the_end() -> None:
    assert WarmupStableDecay(decay=0).factor(99, 100) == 1


def test_a_share_is_the_same_as_its_steps() -> None:
    shares = WarmupStableDecay(warmup=0.1, decay=0.25)

    assert all(shares.factor(s, 80) == WarmupStableDecay(warmup=8, decay=20).factor(s, 80) for s in range(80))


def test_pieces_end_where_they_say() -> None:
    steps = PiecewiseConstant(pieces=((1.0, 10), (0.1, 50)), last=0.01)
    shares = PiecewiseConstant(pieces=((1.0, 0.1), (0.1, 0.5)), last=0.01)

    for schedule in (steps, shares):
        assert [schedule.factor(step, 100) for step in (0, 9, 10, 49, 50, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_the_references_rules_are_read() -> None:
    assert PiecewiseConstant.parse("1:10,0.1:50,0.01") == PiecewiseConstant(pieces=((1.0, 10), (0.1, 50)), last=0.01)
    assert PiecewiseConstant.parse("0.1:50,1:10,0.01").pieces == ((1.0, 10), (0.1, 50))
    assert PiecewiseConstant.parse("0.5") == PiecewiseConstant(pieces=(), last=0.5)


@pytest.mark.parametrize("rules", ["", "1:10", "1:2:3,1", "a:10,1", "1:0.5,1"])
def test_rules_that_cannot_be_read_are_named(rules: str) -> None:
    with pytest.raises(ConfigError, match=r"rules: cannot be read.*1:10,0\.1:50,0\.01"):
        PiecewiseConstant.parse(rules)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (((1.0, 50), (0.1, 10)), "must end at later and later steps"),
        (((1.0, 10), (0.1, 10)), "must end at later and later steps"),
        (((1.0, 10), (0.1, 0.5)), "must end at later and later steps"),
        (((1.0, 1.5),), "an end must be a number of steps, or a share"),
        (((-1.0, 10),), "a factor must not be below 0"),
    ],
)
def test_impossible_pieces_are_refused(pieces: tuple[tuple[float, int | float], ...], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"pieces: {message}"):
        PiecewiseConstant(pieces=pieces, last=1.0)


def test_pieces_have_no_warm_up_but_smaller_ones() -> None:
    with pytest.raises(ConfigError, match="warmup: has no place before pieces"):
        PiecewiseConstant(pieces=((1.0, 10),), last=0.1, warmup=5)


@pytest.mark.parametrize("values", [{"decay": 1.5}, {"shape": "square"}, {"warmup_shape": "sine"}, {"halves": 0.0}])
def test_impossible_stages_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        WarmupStableDecay(**values)  # type: ignore[arg-type]
