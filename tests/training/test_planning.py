from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from musubi import (
    AdamW,
    BlockSwap,
    ConfigError,
    FullFineTune,
    GradientCheckpointing,
    Hardware,
    LoRA,
    Memory,
    PriorPreservation,
    Request,
    Trainer,
)
from musubi.memory.need import CONTEXT
from musubi.testing.toy import Toy


def test_a_plan_has_a_row_for_each_bucket_and_counts_the_adapters_exactly(trainer: Trainer[Toy]) -> None:
    plan = trainer.plan()

    assert {row.bucket for row in plan.rows} == set(trainer.cache.manifest().buckets)
    trainable = next(iter(trainer.start()))
    assert f"{trainable.trainable:,} parameters" in str(plan)  # type: ignore[attr-defined]


def test_a_larger_rank_needs_more_and_checkpointing_needs_less(trainer: Trainer[Toy]) -> None:
    plain = trainer.plan().peak
    wide = trainer.with_network(LoRA(rank=8)).plan().peak
    thrifty = trainer.with_memory(GradientCheckpointing()).plan().peak

    assert plain is not None
    assert wide is not None
    assert thrifty is not None
    assert wide.trained == 2 * plain.trained
    assert thrifty.activations < plain.activations


def test_a_policy_that_the_checkpoint_does_not_allow_is_refused(trainer: Trainer[Toy]) -> None:
    with pytest.raises(ConfigError, match=r"memory\[0\]\.blocks"):
        trainer.with_memory(BlockSwap(blocks=9)).plan()


def test_samples_and_encoding_are_moments_of_the_run_too(trainer: Trainer[Toy]) -> None:
    others = {other.name: other for other in trainer.with_samples("a word", every=5).plan().others}

    assert list(others) == ["encoding latents", "encoding text", "sampling"]
    peak = trainer.plan().peak
    assert peak is not None
    assert others["sampling"].device > peak.weights


def test_a_card_that_is_not_here_is_planned_for_in_bfloat16(trainer: Trainer[Toy]) -> None:
    told = trainer.plan(hardware="RTX 4090")

    assert told.hardware is not None
    assert told.title.endswith("bfloat16")
    assert told.fits
    assert all(row.balance is not None for row in told.rows)


def test_the_pass_is_followed_with_the_caches_own_shapes(trainer: Trainer[Toy]) -> None:
    assert "followed through a pass" in trainer.plan().assumptions[0]


def test_more_batches_a_step_keep_gradients_from_the_start_and_take_longer(trainer: Trainer[Toy]) -> None:
    once, twice = (trainer.replace(accumulate=n).plan(hardware="RTX 4090").peak for n in (1, 2))

    assert once is not None
    assert twice is not None
    assert twice.flops == 2 * once.flops
    assert twice.total >= once.total


def test_a_prior_is_planned_for_too(trainer: Trainer[Toy], tmp_path: Path) -> None:
    shutil.copytree(trainer.cache.path, tmp_path / "prior")
    prior = PriorPreservation(cache=trainer.cache.replace(path=tmp_path / "prior"))
    alone, both = trainer.plan(), trainer.with_prior(prior).plan()

    names = {row.bucket for row in alone.rows}
    assert {row.bucket for row in both.rows} == names | {f"prior {name}" for name in names}
    assert both.places.cache == 2 * alone.places.cache
    assert both.peak is not None
    assert alone.peak is not None
    assert both.peak.trained >= alone.peak.trained


def test_samples_decide_what_is_chosen_and_what_does_not_fit_is_said(trainer: Trainer[Toy]) -> None:
    small = trainer.replace(model=Toy(dim=64, depth=4))
    large = small.with_samples(Request("a word", size=(512, 512)), every=5)
    budget = Memory.fit(small.plan().peak.total + (1 << 16))  # type: ignore[union-attr]

    assert small.with_memory(budget).plan().fits
    with pytest.raises(ConfigError, match="the least that this needs"):
        large.with_memory(budget).plan()
    told = large.plan(hardware=Hardware(name="small", memory=CONTEXT + (1 << 22)))
    assert not told.fits
    assert any(line.startswith("sampling: does not fit") and "smaller" in line for line in told.advice)


def test_while_samples_are_drawn_a_swap_of_trained_weights_is_one_too(trainer: Trainer[Toy]) -> None:
    full = trainer.replace(
        model=Toy(dim=64, depth=8), network=FullFineTune(), optimizer=AdamW(fused_backward=True), accumulate=1
    )
    drawing = full.with_samples("a word", every=5)
    swapped = drawing.with_memory(BlockSwap(blocks=6, write_back=True))

    resident, streamed = (each.plan().others[-1] for each in (drawing, swapped))

    assert resident.name == streamed.name == "sampling"
    assert streamed.device < resident.device
