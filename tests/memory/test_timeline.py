from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi import FP8Scaled, GradientCheckpointing, Int8Scaled, LoRA
from musubi.architectures.flux_kontext.facts import DitFacts as FluxFacts
from musubi.architectures.framepack.facts import DitFacts as FramePackFacts
from musubi.architectures.hunyuan_video.facts import DitFacts as HunyuanFacts
from musubi.architectures.qwen_image.facts import DitFacts as QwenFacts
from musubi.architectures.wan.facts import DitFacts as WanFacts
from musubi.memory.excerpt import excerpt, settle
from musubi.memory.faking import as_on
from musubi.memory.live import Window
from musubi.memory.policy import MemoryPolicy, Placement, preparation
from musubi.memory.timeline import Need, Timeline, follow
from tests.bench import plan_jobs
from tests.bench.plan_jobs import Job
from tests.memory.measured import peak_of_a_step

_AXES = (4, 14, 14)
_JOINT = {"dim": 128, "head_dim": 32, "text_dim": 64, "axes": _AXES}
_WAN = WanFacts(
    dim=128,
    ffn_dim=384,
    num_heads=4,
    num_layers=5,
    in_channels=16,
    out_channels=16,
    text_dim=64,
    freq_dim=64,
    patch=(1, 2, 2),
    image_dim=None,
    image_tokens=None,
    image_keys=False,
)
JOBS: dict[str, Callable[[], Job]] = {
    "wan": lambda: plan_jobs.wan_video(_WAN, size=(128, 128), frames=9),
    "qwen_image": lambda: plan_jobs.qwen_image(
        QwenFacts(blocks=tuple(range(4)), **_JOINT),  # type: ignore[arg-type]
        size=(768, 768),
        text=32,
    ),
    "flux_kontext": lambda: plan_jobs.flux_kontext(
        FluxFacts(num_double=2, num_single=3, pooled_dim=32, **_JOINT),  # type: ignore[arg-type]
        size=(384, 384),
        text=32,
    ),
    "hunyuan_video": lambda: plan_jobs.hunyuan_video(
        HunyuanFacts(num_double=2, num_single=3, mlp_dim=256, pooled_dim=32, **_JOINT),  # type: ignore[arg-type]
        size=(256, 256),
        frames=9,
        text=32,
    ),
    "framepack": lambda: plan_jobs.frame_pack(
        FramePackFacts(num_double=2, num_single=3, mlp_dim=256, pooled_dim=32, image_dim=48, **_JOINT),  # type: ignore[arg-type]
        size=(192, 192),
        text=32,
        image=20,
    ),
}
POLICIES: dict[str, tuple[MemoryPolicy, ...]] = {
    "nothing": (),
    "checkpointing": (GradientCheckpointing(),),
    "every second": (GradientCheckpointing(every=2),),
    "attention kept": (GradientCheckpointing(keep=("attention",)),),
    "fp8": (FP8Scaled(),),
    "int8, checkpointing": (Int8Scaled(), GradientCheckpointing()),
}


@pytest.mark.parametrize(
    ("family", "dtype"), [*((family, torch.bfloat16) for family in JOBS), ("wan", torch.float32)], ids=str
)
def test_a_step_of_every_family_needs_what_was_foreseen_within_five_percent(family: str, dtype: torch.dtype) -> None:
    policies = POLICIES["checkpointing"]

    foreseen = need_of(JOBS[family](), policies, dtype=dtype).total

    assert foreseen == pytest.approx(peak_of_a_step(JOBS[family](), policies, dtype=dtype), rel=0.05)


@pytest.mark.parametrize("chosen", POLICIES)
def test_a_step_under_policies_needs_what_was_foreseen_within_five_percent(chosen: str) -> None:
    policies = POLICIES[chosen]

    foreseen = need_of(JOBS["wan"](), policies, dtype=torch.bfloat16).total

    assert foreseen == pytest.approx(peak_of_a_step(JOBS["wan"](), policies, dtype=torch.bfloat16), rel=0.05)


def test_operations_are_those_of_the_textbook() -> None:
    job = plan_jobs.wan_video(size=(832, 480), frames=81)
    tokens, text, dim, ffn = 32760, 512, 5120, 13824
    a_block = tokens * (12 * dim**2 + 4 * dim * ffn) + 4 * text * dim**2 + 4 * tokens**2 * dim + 4 * tokens * text * dim

    need = need_of(job, (GradientCheckpointing(),), dtype=torch.bfloat16, like="cuda")

    assert need.forward[0] == pytest.approx(40 * a_block, rel=0.01)
    assert sum(need.forward) + sum(need.backward) == pytest.approx(6374e12, rel=0.01)


def test_an_accelerator_keeps_more_where_its_autocast_computes_in_float32() -> None:
    on_cpu, on_cuda = (need_of(JOBS["qwen_image"](), (), dtype=torch.bfloat16, like=like) for like in ("cpu", "cuda"))

    assert on_cuda.kept > on_cpu.kept


def test_without_gradients_nothing_is_kept() -> None:
    need = need_of(JOBS["wan"](), (), dtype=torch.bfloat16, training=False)

    assert need.kept < need.conditions
    assert need.backward == (0, 0)


blocks = st.tuples(st.integers(0, 50), st.integers(0, 100), st.integers(0, 30))


@given(kinds=st.lists(blocks, min_size=1, max_size=3), count=st.integers(1, 12), offloaded=st.integers(0, 12))
def test_more_blocks_never_need_less_and_offloading_never_more(
    kinds: list[tuple[int, int, int]], count: int, offloaded: int
) -> None:
    timeline = made(kinds)
    source = [index % len(kinds) for index in range(count)]

    resident, away = timeline.need(source), timeline.need(source, offloaded=offloaded)

    assert timeline.need([*source, 0]).total >= resident.total
    assert away.total <= resident.total
    assert away.kept + away.waiting == resident.kept


@given(kinds=st.lists(blocks, min_size=1, max_size=3), count=st.integers(1, 12))
def test_gradients_that_are_there_from_the_start_are_the_worst_and_none_the_best(
    kinds: list[tuple[int, int, int]], count: int
) -> None:
    timeline, source = made(kinds), [index % len(kinds) for index in range(count)]
    whole = sum(kinds[index][2] for index in source)

    growing, present, used_up = (
        timeline.need(source, gradients=way, whole=whole).total for way in ("grow", "whole", "none")
    )

    assert used_up <= growing <= present == used_up + whole


def made(kinds: Sequence[tuple[int, int, int]]) -> Timeline:
    """Return a timeline of blocks of (what is kept, working memory, gradients)."""
    return Timeline(
        head=Window(start=0, end=10, peak=12),
        forward=tuple(Window(start=0, end=kept, peak=kept + working) for kept, working, _ in kinds),
        tail=Window(start=0, end=0, peak=5),
        backward=tuple(Window(start=kept, end=0, peak=kept + working, gradients=own) for kept, working, own in kinds),
    )


def need_of(
    job: Job, policies: Sequence[MemoryPolicy], *, dtype: torch.dtype, like: str = "cpu", training: bool = True
) -> Need:
    spec = job.spec
    preparation(policies, keys=spec.keys, layout=spec.layout)(job.model)
    settle(job.model, keys=spec.keys, dtype=dtype, float32=job.float32)
    placement = Placement(title="", layout=spec.layout, device=torch.device("cpu"), dtype=dtype)
    with excerpt(job.model, layout=spec.layout, policies=policies, placement=placement, inner=as_on(like)) as found:
        attach = job.attach(LoRA(rank=4)) if training else None
        timeline = follow(found, lambda model: job.predict(model, dtype=dtype), attach=attach, like=like)
        return timeline.need(found.source, gradients="none")
