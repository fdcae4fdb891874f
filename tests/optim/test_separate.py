from __future__ import annotations

import pytest
import torch

from musubi.optim.adafactor import Adafactor
from musubi.optim.external import AdamW8bit, Lion
from musubi.optim.optimizers import AdamW, Optimizer
from musubi.optim.separate import SeparateSteps
from tests.optim.toy import Toy

SPECS = [AdamW(lr=0.01), AdamW8bit(lr=0.01), Adafactor(lr=0.01, beta1=0.9), Lion(lr=0.01)]
_each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)


def _separate(toy: Toy) -> SeparateSteps:
    assert isinstance(toy.optimizer, SeparateSteps)
    return toy.optimizer


@_each
def test_one_after_another_is_the_same_as_all_together(spec: Optimizer) -> None:
    together, apart = Toy(spec), Toy(spec.replace(fused_backward=True))

    together.take(0, 3)
    apart.take(0, 3)

    assert isinstance(apart.optimizer, SeparateSteps)
    assert all(torch.equal(one, other) for one, other in zip(together.values(), apart.values(), strict=True))


def test_only_the_parameter_asked_for_moves() -> None:
    toy = Toy(AdamW(fused_backward=True))
    before = toy.values()
    for parameter, gradient in zip(toy.parameters, toy.gradients(0), strict=True):
        parameter.grad = gradient

    _separate(toy).step_one(toy.parameters[1])

    assert torch.equal(toy.values()[0], before[0])
    assert not torch.equal(toy.values()[1], before[1])


def test_a_parameter_without_a_gradient_is_passed_over() -> None:
    toy = Toy(AdamW(fused_backward=True))
    before = toy.values()
    toy.parameters[0].grad = toy.gradients(0)[0]

    toy.optimizer.step()

    assert not torch.equal(toy.values()[0], before[0])
    assert torch.equal(toy.values()[1], before[1])


@_each
def test_a_bfloat16_parameter_has_its_state_in_float32_and_the_face_of_before(spec: Optimizer) -> None:
    toy = Toy(spec, dtype=torch.bfloat16)
    storage = toy.parameters[0].data_ptr()

    toy.take(0, 2)

    states = [toy.optimizer.state[parameter] for parameter in toy.parameters]
    assert not any(
        tensor.dtype == torch.bfloat16 for state in states for tensor in state.values() if hasattr(tensor, "dtype")
    )
    assert len(toy.optimizer.state) == 2
    assert toy.parameters[0].dtype == torch.bfloat16
    assert toy.parameters[0].data_ptr() == storage


@_each
def test_bfloat16_follows_float32_where_rounding_to_nearest_stands_still(spec: Optimizer) -> None:
    slow = spec.replace(lr=1e-6)
    narrow, wide = Toy(slow, dtype=torch.bfloat16), Toy(slow)
    start = narrow.values()
    for parameter, value in zip(wide.parameters, start, strict=True):
        parameter.data.copy_(value)

    for toy in (narrow, wide):
        for step in range(200):
            torch.manual_seed(step)
            for parameter in toy.parameters:
                parameter.grad = torch.ones_like(parameter)
            toy.optimizer.step()

    moved, wanted = ((toy.values()[0].float() - start[0].float()).mean() for toy in (narrow, wide))
    torch.testing.assert_close(moved, wanted, rtol=0.1, atol=0)


def test_rates_written_into_the_groups_hold() -> None:
    toy = Toy(AdamW(lr=0.01, weight_decay=0.0, fused_backward=True))
    toy.optimizer.param_groups[0]["lr"] = 0.0
    before = toy.values()

    toy.take(0, 1)

    assert torch.equal(toy.values()[0], before[0])
    assert not torch.equal(toy.values()[1], before[1])


def test_rates_written_after_a_resume_hold() -> None:
    spec = AdamW(lr=0.01, weight_decay=0.0, fused_backward=True)
    toy = Toy(spec)
    toy.take(0, 1)
    again = toy.resumed(spec)
    before = again.values()

    for group in again.optimizer.param_groups:
        group["lr"] = 0.0
    again.take(1, 1)

    assert all(torch.equal(now, then) for now, then in zip(again.values(), before, strict=True))


def test_a_schedule_of_torch_may_drive_it() -> None:
    optimizer = Toy(AdamW(lr=0.01, fused_backward=True)).optimizer
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    optimizer.step()
    scheduler.step()

    assert [group["lr"] for group in optimizer.param_groups] == [0.005, 0.005]


def test_a_closure_is_called_and_its_loss_returned() -> None:
    toy = Toy(AdamW(fused_backward=True))

    def loss() -> float:
        total = sum(parameter.square().sum() for parameter in toy.parameters)
        assert isinstance(total, torch.Tensor)
        total.backward()
        return float(total.detach())

    before = toy.values()
    assert toy.optimizer.step(loss) == pytest.approx(float(sum(value.square().sum() for value in before)))
    assert not torch.equal(toy.values()[0], before[0])
