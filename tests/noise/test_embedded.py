from __future__ import annotations

import torch

from musubi.noise.embedded import Embedded
from musubi.noise.guidance import NEGATIVE, POSITIVE, ClassifierFree, Step

STEP = Step(index=0, total=2, sigma=0.5)


def test_a_single_pass_follows_the_model() -> None:
    rule, velocity = Embedded(scale=2.5), torch.randn(1, 2, 1, 2, 2)

    assert rule.embedded == 2.5
    assert not rule.uses_negative
    assert rule.branches(STEP) == (POSITIVE,)
    assert rule.combine(STEP, {POSITIVE: velocity}) is velocity


def test_two_passes_are_guided_as_without_the_input() -> None:
    rule = Embedded(scale=2.5, classifier_free=3.0)
    answers = {POSITIVE: torch.randn(1, 2, 1, 2, 2), NEGATIVE: torch.randn(1, 2, 1, 2, 2)}

    assert rule.uses_negative
    assert rule.branches(STEP) == (POSITIVE, NEGATIVE)
    assert torch.equal(rule.combine(STEP, answers), ClassifierFree(scale=3.0).combine(STEP, answers))


def test_other_rules_tell_the_model_nothing() -> None:
    assert ClassifierFree(scale=4.0).embedded is None
