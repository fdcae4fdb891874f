from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.noise.guidance import NEGATIVE, POSITIVE, ClassifierFree, Guidance, SkipMode, Step

STEP = Step(index=0, total=4, sigma=0.9)


def test_at_a_scale_of_1_nothing_negative_is_asked() -> None:
    guidance = ClassifierFree(scale=1.0)

    assert not guidance.uses_negative
    assert guidance.branches(STEP) == (POSITIVE,)
    assert torch.equal(guidance.combine(STEP, {POSITIVE: torch.ones(2)}), torch.ones(2))


@given(scale=st.floats(0, 20).filter(lambda s: s != 1))
def test_the_result_lies_on_the_line_through_both_answers(scale: float) -> None:
    guidance = ClassifierFree(scale=scale)

    velocity = guidance.combine(STEP, {POSITIVE: torch.full((1,), 3.0), NEGATIVE: torch.full((1,), 2.0)})

    assert guidance.branches(STEP) == (POSITIVE, NEGATIVE)
    assert velocity.item() == pytest.approx(2.0 + scale, rel=1e-5)


MODES: tuple[SkipMode, ...] = ("early", "middle", "late", "early_late", "alternate")


def guided(rule: ClassifierFree, total: int) -> list[int]:
    return [i for i in range(total) if NEGATIVE in rule.branches(Step(index=i, total=total, sigma=0.5))]


@pytest.mark.parametrize(
    ("skip", "expected"),
    [
        ("early", [4, 5, 6, 7, 8, 9]),
        ("late", [0, 1, 2, 3, 4, 5]),
        ("early_late", [2, 3, 4, 5, 6, 7]),
        ("middle", [0, 1, 2, 7, 8, 9]),
        ("alternate", [1, 3, 5, 6, 8]),
    ],
)
def test_a_mode_leaves_the_steps_it_names_unguided(skip: SkipMode, expected: list[int]) -> None:
    assert guided(ClassifierFree(skip=skip, ratio=0.6), 10) == expected


@pytest.mark.parametrize("skip", MODES)
@given(total=st.integers(1, 60), ratio=st.floats(0, 1))
def test_the_ratio_of_the_steps_is_guided(skip: SkipMode, total: int, ratio: float) -> None:
    found = len(guided(ClassifierFree(skip=skip, ratio=ratio), total))

    spare = 1 if skip == "alternate" else 0  # its sum of ratios rounds at every step
    assert abs(found - int(total * ratio)) <= spare


def test_a_step_that_is_not_guided_follows_the_prompt_alone() -> None:
    rule, step = ClassifierFree(scale=6.0, skip="early", ratio=0.5), STEP

    assert rule.branches(step) == (POSITIVE,)
    assert torch.equal(rule.combine(step, {POSITIVE: torch.ones(2)}), torch.ones(2))


def test_a_ratio_of_0_needs_no_negative_prompt() -> None:
    assert not ClassifierFree(skip="late", ratio=0.0).uses_negative


def test_a_ratio_without_a_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ratio: 0\.5 of the steps, but which"):
        ClassifierFree(ratio=0.5)


@pytest.mark.parametrize("rule", [ClassifierFree(scale=3.5), ClassifierFree(skip="middle", ratio=0.25)], ids=repr)
def test_guidance_survives_toml(rule: Guidance) -> None:
    assert Guidance.from_toml(rule.to_toml()) == rule


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match="scale: must be a number of at least 0"):
        ClassifierFree(scale=-1)
