from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi.optim.exact_state import keep_types, parameters_of
from tests.optim.toy import saved


def _optimizer(dtype: torch.dtype) -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.zeros(3, dtype=dtype)), nn.Parameter(torch.zeros(1, dtype=dtype))], lr=1)


@pytest.mark.parametrize(
    ("parameters", "state"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.bfloat16),
    ],
)
def test_a_state_keeps_the_type_it_was_saved_in(parameters: torch.dtype, state: torch.dtype) -> None:
    written, read, plain = _optimizer(parameters), _optimizer(parameters), _optimizer(parameters)
    first = parameters_of(written.param_groups)[0]
    value = torch.tensor([1.0, 1 / 3, 1e-8]).to(state)
    written.state[first] = {"memory": value, "count": 3, "step": torch.tensor(5.0)}
    keep_types(read)

    for optimizer in (read, plain):
        optimizer.load_state_dict(saved(written.state_dict()))

    loaded = read.state[parameters_of(read.param_groups)[0]]
    assert torch.equal(loaded["memory"], value)
    assert loaded["memory"].dtype == state
    assert (loaded["count"], float(loaded["step"])) == (3, 5.0)
    assert plain.state[parameters_of(plain.param_groups)[0]]["memory"].dtype == parameters  # torch by itself


def test_what_was_loaded_does_not_share_memory_with_what_was_given() -> None:
    written, read = _optimizer(torch.bfloat16), _optimizer(torch.bfloat16)
    written.state[parameters_of(written.param_groups)[0]] = {"memory": torch.ones(3)}
    keep_types(read)
    given = written.state_dict()

    read.load_state_dict(given)
    read.state[parameters_of(read.param_groups)[0]]["memory"].add_(1)

    assert torch.equal(given["state"][0]["memory"], torch.ones(3))
