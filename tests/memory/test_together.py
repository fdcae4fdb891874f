from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi import BlockSwap, FP8Scaled, GradientCheckpointing
from musubi.memory.policy import MemoryPolicy
from musubi.memory.together import home, placed_together, take_turns
from tests.memory import tiny

CPU = torch.device("cpu")


def test_on_an_accelerator_experts_wait_on_the_host_and_take_turns() -> None:
    cuda = torch.device("cuda")

    assert take_turns(2, (), cuda)
    assert home(2, (FP8Scaled(),), cuda) == CPU
    assert not take_turns(1, (BlockSwap(blocks=1),), cuda)
    assert home(1, (), cuda) == cuda
    assert not take_turns(2, (), CPU)


@pytest.mark.parametrize("policies", [(), (GradientCheckpointing(), BlockSwap(blocks=2))])
def test_each_model_computes_what_it_computes_alone_and_is_the_same_afterwards(
    policies: tuple[MemoryPolicy, ...],
) -> None:
    models: dict[str, nn.Module] = {"high": tiny.transformer(), "low": tiny.transformer()}
    with torch.no_grad():
        for parameter in models["low"].parameters():
            parameter.mul_(1.1)
    expected = {name: tiny.generation(model) for name, model in models.items()}

    with placed_together(models, policies, tiny.PLACEMENT) as use:
        for name in ("high", "high", "low", "high"):
            assert use(name) is models[name]
            assert torch.equal(tiny.generation(models[name]), expected[name])

    assert all(torch.equal(tiny.generation(model), expected[name]) for name, model in models.items())
