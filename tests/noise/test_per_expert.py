from __future__ import annotations

import pytest
import torch

from musubi.core.errors import ConfigError
from musubi.noise.guidance import NEGATIVE, POSITIVE, ClassifierFree, Guidance, Step
from musubi.noise.per_expert import PerExpert
from musubi.noise.skip_layer import SkipLayer

HIGH, LOW = (Step(index=i, total=4, sigma=0.9 - i / 2, expert=name) for i, name in enumerate(("high", "low")))


def test_each_expert_is_guided_by_its_own_rule() -> None:
    rule, answers = PerExpert(high=4.0, low=1.0), {POSITIVE: torch.ones(1), NEGATIVE: torch.zeros(1)}

    assert rule.uses_negative
    assert (rule.branches(HIGH), rule.branches(LOW)) == ((POSITIVE, NEGATIVE), (POSITIVE,))
    assert rule.combine(HIGH, answers).item() == 4
    assert rule.combine(LOW, {POSITIVE: torch.ones(1)}).item() == 1


def test_two_scales_of_1_need_no_negative_prompt() -> None:
    assert not PerExpert(high=1.0, low=1.0).uses_negative


def test_a_model_without_such_experts_does_not_fit() -> None:
    (issue,) = PerExpert(high=4.0, low=3.0).misfits(experts=["model"], blocks=None)

    assert issue.message == "this model has no experts for high and low noise levels"


def test_what_does_not_fit_one_rule_is_told_with_its_expert() -> None:
    rule = PerExpert(high=SkipLayer(blocks=(50,)), low=3.0)

    (issue,) = rule.misfits(experts=["high", "low"], blocks=40)

    assert issue.path == "high.blocks"


def test_a_rule_for_each_expert_does_not_tell_experts_apart() -> None:
    with pytest.raises(ConfigError, match="low: is a PerExpert itself"):
        PerExpert(high=4.0, low=PerExpert(high=1.0, low=1.0))


def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="high: must be a Guidance"):
        PerExpert(high="strong", low=3.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", [PerExpert(high=4.0, low=3.0), PerExpert(high=SkipLayer(blocks=(9,)), low=1.0)])
def test_it_survives_toml(rule: PerExpert) -> None:
    assert Guidance.from_toml(rule.to_toml()) == rule


def test_a_file_may_give_a_number() -> None:
    assert PerExpert.from_dict({"high": 4.0, "low": 3}) == PerExpert(
        high=ClassifierFree(scale=4.0), low=ClassifierFree(scale=3.0)
    )
