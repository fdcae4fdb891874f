from __future__ import annotations

import pytest
import torch

from musubi import ActivationOffload, GradientCheckpointing
from musubi.core.errors import ConfigError
from musubi.memory.policy import FitContext, arrange, placed
from musubi.memory.sizes import measure
from tests.memory import tiny

TRAINING = FitContext(title="a toy", layout=tiny.LAYOUT, blocks=tiny.LAYERS)


def test_it_lies_outside_checkpointing_in_whatever_order_they_are_given() -> None:
    offload, checkpointing = ActivationOffload(), GradientCheckpointing()

    assert arrange([offload, checkpointing], TRAINING) == (checkpointing, offload)


@pytest.mark.parametrize("others", [(), (GradientCheckpointing(),)])
def test_gradients_are_those_without_it(others: tuple[GradientCheckpointing, ...]) -> None:
    model = tiny.transformer()
    trained = tiny.adapters(model)
    policies = arrange([*others, ActivationOffload(min_bytes=64)], TRAINING)

    with trained.attached(model):
        expected = tiny.step(model, trained)
        with placed(model, policies, tiny.PLACEMENT):
            found = tiny.step(model, trained)

    assert tiny.equal(found, expected)
    assert not any("forward" in vars(block) for block in model.get_submodule("blocks").children())


def test_generating_keeps_nothing_to_offload() -> None:
    context = FitContext(title="a toy", layout=tiny.LAYOUT, blocks=6, training=False)

    with pytest.raises(ConfigError, match=r"memory\[0\]: .*training.*leave it out"):
        arrange([ActivationOffload()], context)


def test_keeping_the_activations_of_all_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory\[0\]\.keep_last: must be between 0 and 5 for a toy, got 6"):
        arrange([ActivationOffload(keep_last=6)], TRAINING)


def test_it_is_refused_when_placed_if_only_the_checkpoint_tells_the_number_of_blocks() -> None:
    with (
        pytest.raises(ConfigError, match="keep_last: must be between 0 and 5"),
        ActivationOffload(keep_last=9).place(tiny.transformer(), tiny.PLACEMENT),
    ):
        pass


def test_the_plan_counts_the_boundaries_that_are_on_the_host_only() -> None:
    sizes = measure(tiny.transformer(), tiny.LAYOUT, dtype=torch.float32)

    every = GradientCheckpointing().estimate(sizes)
    second = GradientCheckpointing(every=2).estimate(sizes)

    assert ActivationOffload(keep_last=1, depth=2).estimate(every).offloaded == 3
    assert ActivationOffload(keep_last=1, depth=1).estimate(second).offloaded == 1
    assert ActivationOffload().estimate(sizes).offloaded == 0
    assert ActivationOffload(min_bytes=8).estimate(every).offloaded_above == 7
