from __future__ import annotations

import torch

from musubi import BlockSwap, Int8Scaled, Memory, Pipeline
from musubi.architectures.wan.api import WanPipeline
from musubi.architectures.wan.spec import Wan
from musubi.inference.planning import plan, settled
from musubi.inference.request import Request
from musubi.memory.quantise import FP8Scaled
from tests.inference.showing import Showing


def test_longer_clips_need_more_and_quantised_weights_less(wan: Wan) -> None:
    pipeline = WanPipeline(model=wan, device="cpu")
    short, long = (plan(pipeline, Request("", size=(64, 48), frames=n).job(wan)).rows[0] for n in (1, 9))

    small = plan(pipeline.with_memory(FP8Scaled()), Request("", size=(64, 48), frames=9).job(wan)).rows[0]

    assert short.tokens * 3 == long.tokens
    assert short.activations < long.activations
    assert small.weights < long.weights


def test_a_budget_chooses_for_the_job_and_what_is_decided_is_left_alone(wan: Wan) -> None:
    pipeline, job = WanPipeline(model=wan, device="cpu"), Request("", size=(64, 48), frames=1).job(wan)
    least = plan(pipeline.with_memory(Int8Scaled()), job).rows[0].total
    decided = pipeline.with_memory(BlockSwap(blocks=1))

    chosen = settled(pipeline.with_memory(Memory.fit(least)), job, torch.device("cpu"))

    assert chosen == (Int8Scaled(),)
    assert settled(decided, job, torch.device("cpu")) == decided.memory
    assert settled(pipeline.with_memory(Memory.fit("64GiB")), job, torch.device("cpu")) == ()


def test_a_session_generates_with_what_a_budget_chooses(wan: Wan) -> None:
    pipeline = WanPipeline(model=wan, device="cpu")

    plain, chosen = (
        made.generate("a fox", size=(64, 48), frames=1, steps=1)
        for made in (pipeline, pipeline.with_memory(Memory.fit("64GiB")))
    )

    assert plain == chosen


def test_a_plan_for_a_card_tells_times_and_other_moments(wan: Wan) -> None:
    told = plan(WanPipeline(model=wan), Request("", size=(64, 48), frames=9).job(wan), hardware="RTX 3090")

    assert told.rows[0].balance is not None
    assert "bfloat16" in told.title
    assert [other.name for other in told.others] == ["encoding text", "decoding"]
    assert all(other.device > 0 for other in told.others)
    assert "followed through a pass" in told.assumptions[0]


def test_what_a_generation_looks_at_is_planned_with_its_texts() -> None:
    plan = Pipeline(model=Showing(required=("image",)), device="cpu").plan(size=(64, 64), frames=1)

    assert [other.name for other in plan.others] == ["encoding text", "encoding image", "decoding"]


def test_a_control_clip_is_planned_where_it_is_given() -> None:
    pipeline = Pipeline(model=Showing(), device="cpu")

    told = plan(pipeline, Request("", size=(64, 64), frames=1, control="moves.mp4").job(pipeline.model))

    assert [other.name for other in told.others] == ["encoding text", "encoding control", "decoding"]
