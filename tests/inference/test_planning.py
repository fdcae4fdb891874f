from __future__ import annotations

from musubi.architectures.wan.api import WanPipeline
from musubi.architectures.wan.spec import Wan
from musubi.inference.planning import plan
from musubi.inference.request import Request
from musubi.memory.quantise import FP8Scaled


def test_longer_clips_need_more_and_quantised_weights_less(wan: Wan) -> None:
    pipeline = WanPipeline(model=wan, device="cpu")
    short, long = (plan(pipeline, Request("", size=(64, 48), frames=n).job(wan)).rows[0] for n in (1, 9))

    small = plan(pipeline.with_memory(FP8Scaled()), Request("", size=(64, 48), frames=9).job(wan)).rows[0]

    assert short.tokens * 3 == long.tokens
    assert short.activations < long.activations
    assert small.weights < long.weights
