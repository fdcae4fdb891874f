from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from musubi import (
    ActivationOffload,
    BlockSwap,
    ConfigError,
    FP8Scaled,
    GradientCheckpointing,
    Hardware,
    Int8Scaled,
    LoRA,
    MemoryPolicy,
)
from musubi.architecture import StoredWeight
from musubi.memory.forecast import Bucket, Forecast, Subject
from musubi.memory.policy import FitContext
from tests.memory.test_timeline import JOBS

BLOCKS = 5


def subject() -> Subject:
    job = JOBS["wan"]()
    return Subject(
        model=job.model,
        keys=job.spec.keys,
        context=FitContext(title="a toy", layout=job.spec.layout, blocks=BLOCKS),
        dtype=torch.bfloat16,
        buckets=(Bucket(name="one", tokens=192, predict=job.predict),),
        float32=tuple(job.float32),
        attach=job.attach(LoRA(rank=4)),
        trained=1000,
        gradients=400,
    )


FORECAST = Forecast(subject())


@given(
    base=st.sampled_from([(), (GradientCheckpointing(),), (Int8Scaled(), GradientCheckpointing())]),
    swapped=st.integers(1, BLOCKS - 2),
)
@settings(deadline=None, max_examples=12)
def test_more_swapped_blocks_never_need_more_on_the_device_and_always_more_of_the_host(
    base: tuple[MemoryPolicy, ...], swapped: int
) -> None:
    (fewer,), (more,) = (FORECAST.rows((*base, BlockSwap(blocks=n))) for n in (swapped, swapped + 1))

    assert more.total <= fewer.total
    assert more.pinned > fewer.pinned
    assert more.activations == fewer.activations


@given(every=st.integers(1, BLOCKS - 1))
@settings(deadline=None, max_examples=4)
def test_checkpointing_fewer_blocks_keeps_more(every: int) -> None:
    (often,), (seldom,) = (FORECAST.rows((GradientCheckpointing(every=n),)) for n in (every, every + 1))

    assert often.kept <= seldom.kept


def test_eight_bits_halve_the_blocks_matrices_and_leave_what_is_kept() -> None:
    (plain,), (quantised,) = FORECAST.rows(()), FORECAST.rows((FP8Scaled(),))
    matrices = sum(block.matrices for block in FORECAST.sizes(()).blocks)

    assert plain.weights - quantised.weights == pytest.approx(matrices / 2, rel=0.07)
    assert plain.kept == quantised.kept


def test_offloaded_activations_move_to_pinned_memory() -> None:
    (kept,) = FORECAST.rows((GradientCheckpointing(),))
    away = ActivationOffload(min_bytes=1, depth=1)

    (offloaded,) = FORECAST.rows((GradientCheckpointing(), away))

    assert offloaded.pinned == pytest.approx(kept.kept - offloaded.kept, rel=0.05)
    assert offloaded.allocated < kept.allocated
    assert FORECAST.rows((GradientCheckpointing(), ActivationOffload()))[0].pinned == 0


def test_what_is_copied_is_held_against_what_is_computed() -> None:
    card = Hardware(name="a card", memory=1 << 30, tflops=1.0, bandwidth=1e9)

    (resident,), (swapped,) = (FORECAST.rows(policies, card) for policies in ((), (BlockSwap(blocks=4),)))

    assert resident.balance is not None
    assert swapped.balance is not None
    assert resident.balance.copying == 0
    assert swapped.balance.copying == FORECAST.sizes((BlockSwap(blocks=4),)).streamed / 1e9 > 0
    assert swapped.balance.seconds >= resident.balance.seconds


def test_a_file_in_8_bits_is_counted_as_such() -> None:
    names = [f"blocks.{i}.ffn.0" for i in range(BLOCKS)]
    stored = {name: StoredWeight(dtype="float8_e4m3fn", scale=()) for name in names}

    plain, quantised = FORECAST.sizes(()), Forecast(attrs.evolve(subject(), stored=stored)).sizes(())

    assert plain.weights - quantised.weights == pytest.approx(BLOCKS * 128 * 384, abs=5 * BLOCKS)


def test_where_a_pass_cannot_be_followed_activations_are_estimated_and_it_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def depends_on_numbers(model: nn.Module) -> torch.Tensor:
        return model(torch.zeros(int(torch.ones(3).sum())))  # type: ignore[no-any-return]

    unknown = (Bucket(name="no inputs", tokens=192), Bucket(name="odd", tokens=192, predict=depends_on_numbers))
    forecast = Forecast(attrs.evolve(subject(), buckets=unknown))

    first, second = forecast.rows(())

    assert forecast.estimated
    assert first.activations == second.activations > 0
    assert "activations of odd are estimated" in caplog.text


def test_an_estimate_is_of_the_size_of_what_is_found_by_following() -> None:
    (followed,) = FORECAST.rows(())
    (estimated,) = Forecast(attrs.evolve(subject(), buckets=(Bucket(name="b", tokens=192),))).rows(())

    assert 0.4 < estimated.kept / followed.kept < 2.5


def test_policies_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory\[0\]\.blocks: must be between 1 and 4 for a toy, got 5"):
        FORECAST.rows((BlockSwap(blocks=5),))


def test_the_model_is_left_as_it_is() -> None:
    before = {name: type(module) for name, module in FORECAST.subject.model.named_modules()}

    FORECAST.rows((FP8Scaled(), GradientCheckpointing()))

    assert {name: type(module) for name, module in FORECAST.subject.model.named_modules()} == before
