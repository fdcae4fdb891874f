from __future__ import annotations

from collections.abc import Sequence

import pytest

from musubi import BlockSwap, ConfigError, GradientCheckpointing, Int8Scaled, Memory, MemoryPolicy
from musubi.memory.policy import FitContext
from musubi.memory.resolve import is_open, resolved, written
from tests.memory import tiny

CONTEXT = FitContext(title="a toy", layout=tiny.LAYOUT, blocks=10)
MIB = 1 << 20


def peak(policies: Sequence[MemoryPolicy]) -> int:
    """Return 20 MiB, or half of them in 8 bits, minus one for each swapped block."""
    swapped = sum(int(policy.blocks) for policy in policies if isinstance(policy, BlockSwap))
    return (10 if any(isinstance(p, Int8Scaled) for p in policies) else 20) * MIB - swapped * MIB


def test_what_is_decided_already_is_left_alone_and_nothing_is_asked() -> None:
    policies = (GradientCheckpointing(), BlockSwap(blocks=3))

    def never(_: Sequence[MemoryPolicy]) -> int:
        raise AssertionError

    assert resolved(policies, CONTEXT, never) == policies
    assert not any(is_open(policy, CONTEXT) for policy in policies)


@pytest.mark.parametrize(("budget", "blocks"), [("25 MiB", 0), ("20 MiB", 0), ("19 MiB", 1), ("15.5 MiB", 5)])
def test_auto_takes_the_fewest_blocks_that_fit(budget: str, blocks: int) -> None:
    wanted = (GradientCheckpointing(), BlockSwap(blocks="auto", budget=budget))

    chosen = resolved(wanted, CONTEXT, peak)

    assert chosen == (GradientCheckpointing(), *((BlockSwap(blocks=blocks),) if blocks else ()))


def test_a_missing_budget_is_the_memory_of_the_device() -> None:
    assert resolved((BlockSwap(blocks="auto"),), CONTEXT, peak, memory=18 * MIB) == (BlockSwap(blocks=2),)


def test_without_a_budget_and_without_a_device_the_error_says_what_to_give() -> None:
    with pytest.raises(ConfigError, match=r'memory\[1\]\.budget: is not given.*Memory\.fit\("16GiB"\)'):
        resolved((GradientCheckpointing(), Memory.fit()), CONTEXT, peak)


def test_where_nothing_fits_the_error_says_the_least_that_is_needed_and_with_what() -> None:
    with pytest.raises(ConfigError, match=r"the least that this needs is .* with \.with_memory\(BlockSwap\(blocks=9\)"):
        resolved((BlockSwap(blocks="auto", budget="1 MiB"),), CONTEXT, peak)


def test_only_what_is_allowed_comes_into_question() -> None:
    """A run that began with bfloat16 weights goes on with them, though 8 bits would need fewer swapped blocks."""
    policies = (Memory.fit("14 MiB"),)

    free = resolved(policies, CONTEXT, peak)
    kept = resolved(
        (BlockSwap(blocks="auto", budget="14 MiB"),),
        CONTEXT,
        peak,
        allowed=lambda chosen: not any(policy.changes_weights for policy in chosen),
    )

    assert any(isinstance(policy, Int8Scaled) for policy in free)
    assert kept == (BlockSwap(blocks=6),)


def test_the_line_can_be_pasted() -> None:
    policies = (Int8Scaled(), GradientCheckpointing(every=2), BlockSwap(blocks=20))

    line = written(policies)

    assert line == ".with_memory(Int8Scaled(), GradientCheckpointing(every=2), BlockSwap(blocks=20))"
