from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi.optim.places import move_state

ELSEWHERE = torch.device("meta")
"""A device that every machine has beside its CPU."""


def stepped(*, fused: bool = False) -> torch.optim.Optimizer:
    first, second = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    first.grad = torch.ones(3)
    optimizer = torch.optim.AdamW([first, second], fused=fused)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("fused", [False, True])
def test_the_state_lies_where_updates_happen_though_its_parameter_is_elsewhere(*, fused: bool) -> None:
    optimizer = stepped(fused=fused)

    move_state(optimizer, ELSEWHERE)

    (state,) = optimizer.state.values()
    assert {state[name].device for name in ("exp_avg", "exp_avg_sq")} == {ELSEWHERE}
    assert state["step"].device == (ELSEWHERE if fused else torch.device("cpu"))


def test_on_the_parameters_own_device_nothing_changes() -> None:
    optimizer = stepped()
    before = [dict(state) for state in optimizer.state.values()]

    move_state(optimizer, torch.device("cpu"))

    assert [dict(state) for state in optimizer.state.values()] == before
