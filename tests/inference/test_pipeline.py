from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.architecture import Architecture
from musubi.architectures.wan.api import WanPipeline
from musubi.architectures.wan.spec import Wan
from musubi.core.errors import ConfigError, WeightsError
from musubi.inference.loras import LoRAUse
from musubi.inference.pipeline import Pipeline
from musubi.memory.block_swap import BlockSwap
from musubi.memory.quantise import FP8Scaled
from musubi.networks.file import LoRAFile
from musubi.noise.samplers import Euler, UniPC
from musubi.testing.toy import Toy

WAN = WanPipeline(model=Wan.t2v_14b())

pipelines = st.builds(
    WanPipeline,
    model=st.sampled_from([Wan.t2v_14b(), Wan.t2v_1_3b()]),
    loras=st.lists(
        st.builds(LoRAUse, path=st.just(Path("a/clay.safetensors")), weight=st.floats(-2, 2), merge=st.booleans())
    ).map(tuple),
    memory=st.sampled_from([(), (BlockSwap(blocks=20),), (FP8Scaled(), BlockSwap(blocks=3))]),
    sampler=st.none() | st.builds(Euler, shift=st.floats(1, 9)) | st.builds(UniPC, shift=st.floats(1, 9)),
    dtype=st.sampled_from([None, "bfloat16", "float32"]),
    device=st.sampled_from([None, "cpu"]),
)


@given(pipeline=pipelines)
def test_a_pipeline_survives_toml(pipeline: WanPipeline) -> None:
    assert WanPipeline.from_toml(pipeline.to_toml()) == pipeline


def test_the_fluent_steps_return_new_pipelines_of_the_same_class() -> None:
    changed = (
        WAN.with_lora("clay.safetensors", weight=0.8)
        .with_lora(Path("line.safetensors"), merge=True)
        .with_memory(BlockSwap(blocks=20))
        .with_sampler(Euler(shift=3.0))
    )

    assert WanPipeline(model=Wan.t2v_14b()) == WAN
    assert isinstance(changed, WanPipeline)
    assert [(use.path, use.weight, use.merge) for use in changed.loras] == [
        (Path("clay.safetensors"), 0.8, False),
        (Path("line.safetensors"), 1.0, True),
    ]
    assert (changed.memory, changed.sampler) == ((BlockSwap(blocks=20),), Euler(shift=3.0))


def test_a_pinned_pipeline_passes_for_a_general_one() -> None:
    def model_of(pipeline: Pipeline) -> Architecture:
        return pipeline.model

    assert model_of(WAN) is WAN.model


def test_policies_that_do_not_fit_are_refused_at_construction_by_their_place() -> None:
    with pytest.raises(ConfigError, match=r"memory\[1\]\.blocks: must be between 1 and 39 .* got 40"):
        WAN.with_memory(FP8Scaled(), BlockSwap(blocks=40))


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ConfigError, match="dtype: must be one of bfloat16, float16, float32"):
        Pipeline.from_toml('dtype = "bf16"\n[model]\nkind = "wan"\ntask = "t2v_14b"')


def test_a_lora_in_memory_works_but_cannot_be_written(toy_lora: LoRAFile) -> None:
    pipeline = Pipeline(model=Toy()).with_lora(toy_lora, weight=0.5)

    assert pipeline.loras[0].file() is toy_lora
    with pytest.raises(ConfigError, match="cannot be written into a configuration"):
        pipeline.to_toml()


def test_a_bad_request_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError) as caught:
        WAN.with_lora("missing.safetensors").generate("a fox", size=(830, 480), frames=80)

    assert [issue.path for issue in caught.value.issues] == ["size", "frames"]


def test_a_missing_lora_is_named_before_the_model_is_loaded() -> None:
    with pytest.raises(WeightsError, match=r"missing\.safetensors"):
        WAN.with_lora("missing.safetensors").generate("a fox", frames=1)


def test_a_plan_needs_the_checkpoints_header_only(wan: Wan) -> None:
    plan = WanPipeline(model=wan).plan(size=(64, 48), frames=9)

    assert "64x48, 9 frames" in str(plan)
    assert plan.peak is not None
    assert plan.peak.trained == 0
    with pytest.raises(ConfigError, match="size"):
        WanPipeline(model=wan).plan(size=(65, 48))
