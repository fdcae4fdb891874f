from __future__ import annotations

from pathlib import Path

import pytest
import torch

from musubi import BlockSwap, FP8Scaled, GradientCheckpointing
from musubi.core.errors import ConfigError
from musubi.memory.policy import FitContext, MemoryPolicy, arrange, loading_device, placed
from tests.memory import tiny

CONTEXT = FitContext(title="Foo 14B", layout=tiny.LAYOUT, blocks=40)


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


def test_less_than_one_block_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="blocks: must be a whole number of at least 1, got 0"):
        BlockSwap(blocks=0)


def test_the_model_is_loaded_on_the_host() -> None:
    device = torch.device("cuda")

    assert loading_device([FP8Scaled()], device) == device
    assert loading_device([FP8Scaled(), BlockSwap(blocks=2)], device) == torch.device("cpu")
