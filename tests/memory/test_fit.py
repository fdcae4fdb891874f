from __future__ import annotations

import attrs
import pytest

from musubi import (
    ActivationOffload,
    BlockSwap,
    ConfigError,
    FP8Scaled,
    GradientCheckpointing,
    Int8Scaled,
    Memory,
    MemoryPolicy,
)
from musubi.memory.policy import FitContext, arrange
from tests.memory import tiny

CONTEXT = FitContext(title="a toy", layout=tiny.LAYOUT, blocks=4)


def ladder(context: FitContext, *others: MemoryPolicy) -> list[tuple[MemoryPolicy, ...]]:
    memory = Memory.fit("1GiB")
    return list(memory.choices(attrs.evolve(context, policies=(*others, memory))))


def kinds(choices: list[tuple[MemoryPolicy, ...]]) -> set[str]:
    return {policy.kind for choice in choices for policy in choice}


def test_in_training_the_cheapest_in_time_comes_first() -> None:
    checkpointed, base = (GradientCheckpointing(),), (Int8Scaled(), GradientCheckpointing())

    assert ladder(CONTEXT) == [
        (),
        checkpointed,
        base,
        *((*base, BlockSwap(blocks=n)) for n in (1, 2, 3)),
        *((*base, ActivationOffload(), BlockSwap(blocks=n)) for n in (1, 2, 3)),
    ]


def test_generating_keeps_nothing_for_backward() -> None:
    choices = ladder(attrs.evolve(CONTEXT, training=False))

    assert choices == [(), (Int8Scaled(),), *((Int8Scaled(), BlockSwap(blocks=n)) for n in (1, 2, 3))]


def test_trained_weights_are_not_quantised_and_swapped_only_with_updates_during_backward() -> None:
    whole = attrs.evolve(CONTEXT, trains_base=True)

    assert kinds(ladder(whole)) == {"gradient_checkpointing", "activation_offload"}
    fused = ladder(attrs.evolve(whole, fused_backward=True))
    swaps = [policy for choice in fused for policy in choice if isinstance(policy, BlockSwap)]
    assert swaps
    assert all(swap.write_back for swap in swaps)


@pytest.mark.parametrize(
    "context", [attrs.evolve(CONTEXT, stored="int8"), attrs.evolve(CONTEXT, divided=True)], ids=str
)
def test_what_the_file_or_the_launcher_rules_out_is_not_chosen(context: FitContext) -> None:
    found = kinds(ladder(context))

    assert "int8_scaled" not in found
    assert ("block_swap" in found) == (not context.divided)


def test_what_is_named_besides_stays_and_is_not_chosen_again() -> None:
    found = kinds(ladder(CONTEXT, FP8Scaled(), GradientCheckpointing(every=2)))

    assert found == {"block_swap", "activation_offload"}


@pytest.mark.parametrize(
    "context",
    [
        CONTEXT,
        attrs.evolve(CONTEXT, training=False),
        attrs.evolve(CONTEXT, trains_base=True, fused_backward=True),
        attrs.evolve(CONTEXT, trains_base=True),
        attrs.evolve(CONTEXT, divided=True),
        attrs.evolve(CONTEXT, stored="int8"),
    ],
    ids=str,
)
def test_every_choice_goes_together(context: FitContext) -> None:
    for choice in ladder(context):
        arrange(choice, context)


@pytest.mark.parametrize(("given", "kept"), [("16GiB", "16GiB"), (1 << 34, "17179869184 B"), (None, None)])
def test_a_budget_is_a_text_or_a_number_of_bytes(given: str | int | None, kept: str | None) -> None:
    memory = Memory.fit(given)

    assert memory.budget == kept
    assert Memory.from_toml(memory.to_toml()) == memory


@pytest.mark.parametrize("given", ["a lot", "0GiB", 0, -5, True])
def test_what_is_no_amount_of_memory_is_refused(given: object) -> None:
    with pytest.raises(ConfigError, match="budget: must be an amount of memory"):
        Memory.fit(given)  # type: ignore[arg-type]


def test_it_cannot_be_placed_before_it_has_chosen() -> None:
    with (
        pytest.raises(ConfigError, match="has not chosen policies"),
        Memory.fit("1GiB").place(tiny.transformer(), tiny.PLACEMENT),
    ):
        pass
