from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi.memory.forwards import Forward, wrapped


def test_the_last_one_put_around_is_outermost_and_all_are_taken_off() -> None:
    block, called = nn.Linear(2, 2), list[str]()

    def noting(name: str, forward: Forward) -> Forward:
        def run(value: torch.Tensor) -> object:
            called.append(name)
            return forward(value)

        return run

    with wrapped([block], lambda _, forward: noting("inner", forward)):
        with wrapped([block], lambda _, forward: noting("outer", forward)):
            block(torch.zeros(2))
        block(torch.zeros(2))

    assert called == ["outer", "inner", "inner"]
    assert "forward" not in vars(block)
    assert list(block.state_dict()) == ["weight", "bias"]


def test_what_was_put_around_is_taken_off_when_the_rest_fails() -> None:
    blocks = [nn.Linear(2, 2) for _ in range(3)]

    def failing(block: nn.Module, forward: Forward) -> Forward:
        if block is blocks[2]:
            raise RuntimeError("on purpose")
        return forward

    with pytest.raises(RuntimeError, match="on purpose"), wrapped(blocks, failing):
        pass

    assert not any("forward" in vars(block) for block in blocks)
