from __future__ import annotations

import pytest

from musubi import ConfigError, GradientCheckpointing, LoRA, Trainer
from musubi.memory.block_swap import BlockSwap
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
