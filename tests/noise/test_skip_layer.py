from __future__ import annotations

import pytest
import torch

from musubi.core.errors import ConfigError
from musubi.noise.guidance import NEGATIVE, POSITIVE, Branch, ClassifierFree, Guidance, Step
from musubi.noise.skip_layer import SkipLayer

WEAK, WEAK_NEGATIVE = Branch("positive", (4, 9)), Branch("negative", (4, 9))
ANSWERS = {POSITIVE: torch.ones(1), NEGATIVE: torch.tensor([10.0])}


def step(index: int, total: int = 10) -> Step:
    return Step(index=index, total=total, sigma=0.5)


def test_the_original_asks_a_third_time_without_the_blocks_under_the_prompt_itself() -> None:
    rule = SkipLayer(blocks=(9, 4), scale=3.0, base=ClassifierFree(scale=5.0))

    assert rule.branches(step(0)) == (POSITIVE, NEGATIVE, WEAK)
    velocity = rule.combine(step(0), {**ANSWERS, WEAK: torch.tensor([100.0])})
    assert velocity.item() == 10 + 5 * (1 - 10) + 3 * (1 - 100)


def test_in_uncond_mode_the_weakened_answer_stands_in_for_the_negative_one() -> None:
    rule = SkipLayer(blocks=(4, 9), mode="uncond", base=ClassifierFree(scale=5.0))

    assert rule.branches(step(0)) == (POSITIVE, WEAK_NEGATIVE)
    velocity = rule.combine(step(0), {POSITIVE: torch.ones(1), WEAK_NEGATIVE: torch.tensor([100.0])})
    assert velocity.item() == 100 + 5 * (1 - 100)


def test_outside_its_share_of_the_steps_the_base_guides() -> None:
    rule = SkipLayer(blocks=(4, 9), start=0.25, end=0.55)

    assert [i for i in range(10) if WEAK in rule.branches(step(i))] == [2, 3, 4]
    assert rule.branches(step(5)) == (POSITIVE, NEGATIVE)
    assert rule.combine(step(5), ANSWERS).item() == 10 + 5 * (1 - 10)


def test_steps_that_the_base_leaves_out_are_left_out() -> None:
    rule = SkipLayer(blocks=(4, 9), end=1.0, base=ClassifierFree(skip="early", ratio=0.5))

    assert [i for i in range(10) if WEAK in rule.branches(step(i))] == [5, 6, 7, 8, 9]


def test_at_a_scale_of_1_only_the_original_needs_the_weakened_network_and_neither_the_negative_prompt() -> None:
    original = SkipLayer(blocks=(4, 9), base=ClassifierFree(scale=1.0))
    uncond = original.replace(mode="uncond")

    assert (original.uses_negative, uncond.uses_negative) == (False, False)
    assert original.branches(step(0)) == (POSITIVE, WEAK)
    assert uncond.branches(step(0)) == (POSITIVE,)
    assert uncond.combine(step(0), {POSITIVE: torch.ones(1)}).item() == 1


@pytest.mark.parametrize(
    ("blocks", "start", "end", "said"),
    [
        ((), 0.0, 0.3, "blocks: names none"),
        ((4, 4), 0.0, 0.3, "blocks: names a block twice"),
        ((-1,), 0.0, 0.3, "must be a whole number of at least 0"),
        ((4,), 0.5, 0.3, "end: must be above start"),
    ],
)
def test_what_cannot_be_meant_is_refused(blocks: tuple[int, ...], start: float, end: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SkipLayer(blocks=blocks, start=start, end=end)


def test_blocks_that_a_model_lacks_do_not_fit_it() -> None:
    rule = SkipLayer(blocks=(4, 30, 31))

    (issue,) = rule.misfits(experts=["model"], blocks=30)

    assert (issue.path, issue.message) == ("blocks", "there is no block 30, 31 that can be passed by")
    assert issue.hint == "the model has blocks 0 to 29"
    assert list(rule.misfits(experts=["model"], blocks=32)) == list(rule.misfits(experts=["model"], blocks=None)) == []


def test_it_survives_toml() -> None:
    rule = SkipLayer(blocks=(4, 9), mode="uncond", base=ClassifierFree(scale=3.0, skip="late", ratio=0.5))

    assert Guidance.from_toml(rule.to_toml()) == rule
