from __future__ import annotations

import re
from pathlib import Path

import pytest

from musubi import BlockSwap, GradientCheckpointing, Int8Scaled, Trainer
from musubi.memory.plan import Row
from musubi.memory.policy import MemoryPolicy
from musubi.testing.toy import Toy
from musubi.training.advice import memory_advice

ALL = (GradientCheckpointing(), Int8Scaled(), BlockSwap(blocks=7))


@pytest.fixture
def wide(trainer: Trainer[Toy]) -> Trainer[Toy]:
    """A model of many blocks: enough for every measure to show."""
    return trainer.replace(model=Toy(dim=256, depth=8), memory=())


def row(trainer: Trainer[Toy], bucket: str) -> Row:
    return next(row for row in trainer.plan().rows if row.bucket == bucket)


def sizes(advice: str) -> list[float]:
    return [float(size) for size in re.findall(r"([\d.]+) MiB", advice)]


def test_it_names_the_bucket_what_was_planned_for_it_and_every_measure_with_what_it_leaves(
    wide: Trainer[Toy],
) -> None:
    advice = memory_advice(wide, "64x32")

    names = [
        "GradientCheckpointing()",
        "Int8Scaled()",
        "BlockSwap(blocks=4)",
        "BlockSwap(blocks=7)",
        "with_batch_size(1)",
    ]
    assert [advice.index(name) for name in names] == sorted(advice.index(name) for name in names)
    assert "bucket 64x32" in advice
    assert "\n" not in advice
    assert sizes(advice)[0] == pytest.approx(row(wide, "64x32").total / 2**20, rel=0.06)
    assert sizes(advice) == sorted(sizes(advice), reverse=True)


def test_the_numbers_are_those_of_the_plan_with_all_measures_so_far(wide: Trainer[Toy]) -> None:
    advice = memory_advice(wide, "48x48")

    planned = [row(wide.with_memory(*ALL[:taken]), "48x48").total / 2**20 for taken in range(4)]
    found = sizes(advice)
    assert [found[place] for place in (0, 1, 2, 4)] == pytest.approx(planned, rel=0.06)


@pytest.mark.parametrize("used", ALL, ids=lambda policy: policy.kind)
def test_what_is_in_use_already_is_not_advised(wide: Trainer[Toy], used: MemoryPolicy) -> None:
    advice = memory_advice(wide.with_memory(used), "64x32")

    assert type(used).__name__ not in advice
    assert all(type(other).__name__ in advice for other in ALL if other != used)


def test_what_is_in_use_only_in_part_is_advised_in_full(wide: Trainer[Toy]) -> None:
    advice = memory_advice(wide.with_memory(GradientCheckpointing(every=4), BlockSwap(blocks=5)), "64x32")

    assert "GradientCheckpointing()" in advice
    assert "BlockSwap(blocks=6)" in advice
    assert "BlockSwap(blocks=4)" not in advice


def test_with_everything_in_use_a_smaller_batch_is_left(wide: Trainer[Toy]) -> None:
    advice = memory_advice(wide.with_memory(*ALL), "64x32")

    assert "; with dataset.with_batch_size(1): " in advice


def test_a_bucket_without_a_plan_still_gets_the_general_words(trainer: Trainer[Toy], tmp_path: Path) -> None:
    gone = trainer.replace(cache=trainer.cache.replace(path=tmp_path / "gone"))

    for advice in (memory_advice(trainer, "1x1"), memory_advice(gone, "1x1")):
        assert "bucket 1x1" in advice
        assert "GradientCheckpointing()" in advice
