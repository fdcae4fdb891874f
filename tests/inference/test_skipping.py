from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from musubi.core.errors import ConfigError
from musubi.inference.skipping import Skipping


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_blocks_that_are_passed_by_hand_on_what_they_get_and_their_hooks_still_run() -> None:
    model, skipping, x = nn.Sequential(Scale(2), Scale(3), Scale(5)), Skipping(), torch.ones(())
    ran: list[nn.Module] = []
    for block in model:
        block.register_forward_hook(lambda block, *_: ran.append(block))

    with skipping.watching(tuple(model)):
        full = model(x).item()
        skipping.without = (1, 2)
        part = model(x).item()

    assert (full, part) == (30, 2)
    assert len(ran) == 6


def test_afterwards_the_blocks_are_as_before() -> None:
    model, skipping = nn.Sequential(Scale(2), Scale(3)), Skipping()
    skipping.without = (0,)

    with skipping.watching(tuple(model)):
        pass

    assert model(torch.ones(())).item() == 6
    assert all("forward" not in vars(block) for block in model)


def test_a_block_is_passed_by_whatever_it_is_given_by_name() -> None:
    block, skipping = Scale(2), Skipping()
    skipping.without = (0,)

    with skipping.watching((block,)):
        assert block(x=torch.ones(())).item() == 1


def test_blocks_that_carry_several_tensors_are_refused() -> None:
    with Skipping().watching((pair := Pair(),)), pytest.raises(ConfigError, match="several tensors"):
        pair(torch.ones(()))
