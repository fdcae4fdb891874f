"""What a generation uses where nothing is said: steps, shift, guidance of the experts, frames, the experts' border."""

from __future__ import annotations

from typing import Any

import pytest

from musubi.architectures.wan.spec import Wan
from musubi.inference.request import Request
from musubi.noise.guidance import POSITIVE, Guidance, Step
from musubi.noise.samplers import UniPC
from tests.parity.cases import vector_cases

TASKS = {
    "t2v-14B": "t2v_14b",
    "t2v-1.3B": "t2v_1_3b",
    "t2i-14B": "t2i_14b",
    "i2v-14B": "i2v_14b",
    "flf2v-14B": "flf2v_14b",
    "t2v-1.3B-FC": "t2v_1_3b_control",
    "t2v-14B-FC": "t2v_14b_control",
    "i2v-14B-FC": "i2v_14b_control",
    "i2v-A14B": "i2v_a14b",
    "t2v-A14B": "t2v_a14b",
}
CASES = vector_cases("infer_wan_defaults")


def scale(guidance: Guidance, expert: str) -> float:
    """Return how far from the negative answer, 0, a rule goes when the positive one is 1."""
    import torch

    step = Step(index=0, total=2, sigma=0.95 if expert == "high" else 0.1, expert=expert)
    answers = {branch: torch.tensor(float(branch == POSITIVE)) for branch in guidance.branches(step)}
    return float(guidance.combine(step, answers))


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["id"]))
def test_infer_wan_defaults(case: dict[str, Any]) -> None:
    model: Wan = getattr(Wan, TASKS[case["task"]])()
    height, width = case["video_size_hw"]

    job = Request("a fox", size=(width, height)).job(model, planned=True)
    sampler = model.sampler_for(job.size)

    assert (job.steps, job.frames) == (case["infer_steps"], case["video_length"])
    assert isinstance(sampler, UniPC)
    assert sampler.shift == case["flow_shift"]
    low, high = model.experts[-1], model.experts[0]
    assert scale(job.guidance, low.name) == case["guidance_low"]
    assert scale(job.guidance, high.name) == case["guidance_high"]
    assert (high.low if len(model.experts) == 2 else None) == case["boundary"]
