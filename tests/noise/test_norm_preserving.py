from __future__ import annotations

import pytest
import torch

from musubi.embedding.patches import patched
from musubi.noise.guidance import NEGATIVE, POSITIVE, Branch, ClassifierFree, Step
from musubi.noise.norm_preserving import NormPreserving

STEP = Step(index=0, total=2, sigma=0.5)
SHAPE = (2, 4, 3, 4, 6)


def answers() -> dict[Branch, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {branch: torch.randn(SHAPE, generator=generator) for branch in (POSITIVE, NEGATIVE)}


@pytest.mark.parametrize("scale", [0.5, 4.0, 10.0])
def test_every_token_has_the_length_of_the_prompts_own(scale: float) -> None:
    found = answers()

    guided = NormPreserving(scale=scale).combine(STEP, found)

    lengths = [patched(x, (1, 2, 2)).norm(dim=-1) for x in (guided, found[POSITIVE])]
    torch.testing.assert_close(*lengths)


def test_every_token_points_where_plain_guidance_leads() -> None:
    found = answers()

    guided, plain = (rule(scale=4.0).combine(STEP, found) for rule in (NormPreserving, ClassifierFree))

    tokens = [torch.nn.functional.normalize(patched(x, (1, 2, 2)), dim=-1) for x in (guided, plain)]
    torch.testing.assert_close(*tokens)
    assert not torch.allclose(guided, plain)


def test_the_prompts_own_prediction_stays_as_it_is() -> None:
    found = answers()

    assert torch.equal(NormPreserving(scale=1.0).combine(STEP, {POSITIVE: found[POSITIVE]}), found[POSITIVE])


def test_nothing_to_follow_stays_nothing() -> None:
    nothing = {POSITIVE: torch.zeros(SHAPE), NEGATIVE: torch.zeros(SHAPE)}

    assert torch.equal(NormPreserving().combine(STEP, nothing), torch.zeros(SHAPE))
