from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.noise.guidance import ClassifierFree, Guidance, Step

STEP = Step(index=0, total=4, sigma=0.9)


def test_at_a_scale_of_1_nothing_negative_is_asked() -> None:
    guidance = ClassifierFree(scale=1.0)

    assert not guidance.uses_negative
    assert guidance.branches(STEP) == ("positive",)
    assert torch.equal(guidance.combine(STEP, {"positive": torch.ones(2)}), torch.ones(2))


@given(scale=st.floats(0, 20).filter(lambda s: s != 1))
def test_the_result_lies_on_the_line_through_both_answers(scale: float) -> None:
    guidance = ClassifierFree(scale=scale)

    velocity = guidance.combine(STEP, {"positive": torch.full((1,), 3.0), "negative": torch.full((1,), 2.0)})

    assert guidance.branches(STEP) == ("positive", "negative")
    assert velocity.item() == pytest.approx(2.0 + scale, rel=1e-5)


def test_guidance_survives_toml() -> None:
    assert Guidance.from_toml(ClassifierFree(scale=3.5).to_toml()) == ClassifierFree(scale=3.5)


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match="scale: must be a number of at least 0"):
        ClassifierFree(scale=-1)
