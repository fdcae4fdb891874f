from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch

from musubi import BlockSwap, FP8Scaled, GradientCheckpointing
from musubi.core.errors import ConfigError
from musubi.memory.arena import PAGE, Arena
from musubi.memory.policy import FitContext, MemoryPolicy, arrange, blocks_of, loading_device, placed
from musubi.memory.schedule import weighted
from musubi.memory.sizes import BlockSize, Sizes, measure
from musubi.memory.streamable import streamable
from tests.memory import tiny
from tests.memory.locks import Locks

CONTEXT = FitContext(title="Foo 14B", layout=tiny.LAYOUT, blocks=40)
FULL = attrs.evolve(CONTEXT, trains_base=True, fused_backward=True)


@pytest.mark.parametrize(
    "others", [(), (GradientCheckpointing(),), (FP8Scaled(),), (FP8Scaled(), GradientCheckpointing())]
)
def test_with_other_policies_the_results_are_the_same_bit_for_bit(
    others: tuple[MemoryPolicy, ...], tmp_path: Path
) -> None:
    model = tiny.loaded(tmp_path, others)
    trained = tiny.adapters(model)
    before = tiny.snapshot(model)
    policies = arrange([BlockSwap(blocks=4), *others], FitContext(title="a toy", layout=tiny.LAYOUT, blocks=6))

    with trained.attached(model):
        expected, picture = tiny.step(model, trained), tiny.generation(model)
        with placed(model, policies, tiny.PLACEMENT):
            assert tiny.equal(tiny.step(model, trained), expected)
            assert torch.equal(tiny.generation(model), picture)
            assert tiny.equal(tiny.step(model, trained), expected)
        assert tiny.equal(tiny.step(model, trained), expected)

    assert tiny.unchanged(model, before)


def test_all_blocks_is_too_many() -> None:
    with pytest.raises(ConfigError) as caught:
        arrange([FP8Scaled(), BlockSwap(blocks=40)], CONTEXT)

    assert [str(issue) for issue in caught.value.issues] == [
        "memory[1].blocks: must be between 1 and 39 for Foo 14B, got 40 (hint: 40 blocks exist, one must stay)"
    ]


def test_too_many_for_a_checkpoint_that_only_placing_knows_is_said_then() -> None:
    model = tiny.transformer()

    with (
        pytest.raises(ConfigError, match="blocks: must be between 1 and 5 for a toy, got 6"),
        placed(model, [BlockSwap(blocks=6)], tiny.PLACEMENT),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": 0}, "blocks: must be a whole number of at least 1, got 0"),
        ({"blocks": "all"}, "blocks: must be a whole number of at least 1, or 'auto', got 'all'"),
        ({"blocks": "auto", "budget": "much"}, "budget: must be an amount of memory such as '16GiB', got 'much'"),
        ({"blocks": 2, "budget": "8GiB"}, r"budget: decides nothing, as blocks is 2 \(hint: give blocks=\"auto\""),
    ],
)
def test_what_makes_no_sense_by_itself_is_refused_at_once(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BlockSwap(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "context", "message"),
    [
        (
            BlockSwap(blocks=2),
            FULL,
            r"memory\[0\]: BlockSwap never copies weights back, so it cannot hold trained .*write_back=True",
        ),
        (BlockSwap(blocks=2, write_back=True), CONTEXT, r"memory\[0\]\.write_back: is for weights that are trained"),
        (
            BlockSwap(blocks=2, write_back=True),
            attrs.evolve(FULL, fused_backward=False),
            r"memory\[0\]\.write_back: needs an optimiser .* \(hint: give the optimiser fused_backward=True",
        ),
        (BlockSwap(blocks="auto"), attrs.evolve(CONTEXT, divided=True), r"memory\[0\]: .*divided model \(FSDP\)"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_way_out(
    policy: BlockSwap, context: FitContext, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        arrange([policy], context)


def test_trained_blocks_may_swap_where_they_come_back() -> None:
    policy = BlockSwap(blocks=39, write_back=True)

    assert arrange([policy], FULL) == (policy,)


def test_the_model_is_loaded_on_the_host() -> None:
    device = torch.device("cuda")

    assert loading_device([FP8Scaled()], device) == device
    assert loading_device([FP8Scaled(), BlockSwap(blocks=2)], device) == torch.device("cpu")


def test_auto_means_as_few_blocks_as_fit() -> None:
    policy = BlockSwap(blocks="auto", budget="16GiB")

    choices = list(policy.choices(attrs.evolve(CONTEXT, blocks=4)))

    assert choices == [(), (BlockSwap(blocks=1),), (BlockSwap(blocks=2),), (BlockSwap(blocks=3),)]
    assert list(policy.choices(attrs.evolve(CONTEXT, blocks=None))) == [(policy,)]
    assert list(BlockSwap(blocks=3).choices(CONTEXT)) == [(BlockSwap(blocks=3),)]
    written = BlockSwap(blocks="auto", write_back=True)
    assert list(written.choices(attrs.evolve(FULL, blocks=2)))[1] == (BlockSwap(blocks=1, write_back=True),)


def test_auto_that_nobody_decided_cannot_be_placed() -> None:
    with (
        pytest.raises(ConfigError, match="blocks: is still 'auto', but the model is to be placed"),
        placed(tiny.transformer(), [BlockSwap(blocks="auto")], tiny.PLACEMENT),
    ):
        pass


@pytest.mark.parametrize(
    "policy", [BlockSwap(blocks="auto", budget="16GiB"), BlockSwap(blocks=3), BlockSwap(blocks=3, write_back=True)]
)
def test_it_survives_toml(policy: BlockSwap) -> None:
    assert BlockSwap.from_toml(policy.to_toml()) == policy


@pytest.mark.parametrize(("policy", "slots"), [(BlockSwap(blocks=4), 2), (BlockSwap(blocks=4, write_back=True), 3)])
def test_swapped_blocks_are_pinned_and_streamed_but_for_the_slots(policy: BlockSwap, slots: int) -> None:
    size = 100 << 20
    before = _sizes([size] * 10)

    after = policy.estimate(before)

    assert before.weights - after.weights == (4 - slots) * size
    assert after.pinned == 4 * size
    assert after.streamed == (4 - slots) * size
    assert after.host == before.weights + size
    assert BlockSwap(blocks="auto").estimate(before) == before


def test_layouts_have_slots_of_their_own() -> None:
    each = [24 << 20] * 4 + [10 << 20] * 8
    chosen = [each[index] for index in weighted(6, each)]

    after = BlockSwap(blocks=6).estimate(_sizes(each))

    assert chosen.count(24 << 20) == 1
    held = (24 << 20) + 2 * (10 << 20)
    assert _sizes(each).weights - after.weights == sum(chosen) - held


def test_the_estimate_of_a_real_model_is_what_is_pinned() -> None:
    model = tiny.transformer()
    estimated = BlockSwap(blocks=4).estimate(measure(model, tiny.LAYOUT, dtype=torch.float32)).pinned

    arena = Arena([list(streamable(block)) for block in blocks_of(model, tiny.LAYOUT)[:4]], registrar=Locks())

    assert arena.pinned_bytes == pytest.approx(estimated, abs=4 * PAGE)


def _sizes(each: list[int]) -> Sizes:
    blocks = tuple(BlockSize(matrices=size, rest=0, boundary=1, working=1) for size in each)
    return Sizes(blocks=blocks, weights=sum(each), largest_matrix=max(each), kept=len(each))
