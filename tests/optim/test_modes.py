from __future__ import annotations

import pytest
import torch

from musubi.optim.external import ProdigyPlusScheduleFree, ScheduleFreeAdamW
from musubi.optim.modes import evaluating
from musubi.optim.optimizers import AdamW, Optimizer
from tests.optim.toy import Toy

SPECS = [ScheduleFreeAdamW(lr=0.01), ProdigyPlusScheduleFree(d0=1e-3)]
_each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)


@_each
def test_inside_are_the_averages_and_outside_the_weights_again_bit_for_bit(spec: Optimizer) -> None:
    toy = Toy(spec)
    toy.take(0, 4)
    before = toy.values()

    with evaluating(toy.optimizer):
        inside = toy.values()

    assert all(not torch.equal(now, then) for now, then in zip(inside, before, strict=True))
    assert all(torch.equal(now, then) for now, then in zip(toy.values(), before, strict=True))


@_each
def test_a_run_that_looks_at_its_weights_is_one_that_does_not(spec: Optimizer) -> None:
    looking, straight = Toy(spec), Toy(spec)
    for toy in (looking, straight):
        toy.take(0, 3)
    with evaluating(looking.optimizer):
        pass
    for toy in (looking, straight):
        toy.take(3, 3)

    assert all(torch.equal(one, other) for one, other in zip(looking.values(), straight.values(), strict=True))


@_each
def test_training_goes_on_after_an_error_inside(spec: Optimizer) -> None:
    toy = Toy(spec)
    toy.take(0, 2)
    before = toy.values()

    with pytest.raises(RuntimeError, match="no room"), evaluating(toy.optimizer):
        raise RuntimeError("no room")

    assert all(torch.equal(now, then) for now, then in zip(toy.values(), before, strict=True))
    toy.take(2, 1)  # would raise outside of the training mode
    assert not torch.equal(toy.values()[0], before[0])


def test_the_average_of_schedule_free_adamw_is_the_one_it_defines() -> None:
    spec = ScheduleFreeAdamW(lr=0.01, betas=(0.9, 0.999))
    toy = Toy(spec)
    points = []
    for step in range(5):
        toy.take(step, 1)
        points.append(toy.optimizer.state[toy.parameters[0]]["z"].clone())

    with evaluating(toy.optimizer):
        torch.testing.assert_close(toy.values()[0], torch.stack(points).mean(0), rtol=0, atol=1e-6)


def test_other_optimisers_have_one_mode() -> None:
    toy = Toy(AdamW())
    before = toy.values()

    with evaluating(toy.optimizer):
        assert torch.equal(toy.values()[0], before[0])
