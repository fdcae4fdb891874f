from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from musubi.core.errors import ConfigError
from musubi.optim.adafactor import Adafactor
from musubi.optim.external import AdamW8bit, Lion, ScheduleFreeAdamW
from musubi.optim.fused import FusedBackward
from musubi.optim.optimizers import AdamW, Optimizer
from musubi.parameters import ParameterGroup

SPECS = [AdamW(lr=0.01), AdamW8bit(lr=0.01, min_8bit_size=16), Adafactor(lr=0.01), Lion(lr=0.01)]
_each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def _optimizer(spec: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    return spec.build([ParameterGroup(name="unet", parameters=tuple(model.parameters()))])


def _loss(model: nn.Module, step: int) -> torch.Tensor:
    x = torch.randn(5, 8, generator=torch.Generator().manual_seed(step))
    loss: torch.Tensor = model(x).square().mean()
    return loss


def _train(spec: Optimizer, model: nn.Module, *, limit: float | None = None) -> list[torch.Tensor]:
    optimizer = _optimizer(spec, model)
    for step in range(3):
        _loss(model, step).backward()
        if limit is not None:
            for parameter in model.parameters():
                torch.nn.utils.clip_grad_norm_([parameter], limit)
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in model.parameters()]


def _train_fused(spec: Optimizer, model: nn.Module, *, limit: float | None = None) -> list[torch.Tensor]:
    with FusedBackward(_optimizer(spec.replace(fused_backward=True), model), max_grad_norm=limit):
        for step in range(3):
            _loss(model, step).backward()
            assert all(parameter.grad is None for parameter in model.parameters())
    return [parameter.detach().clone() for parameter in model.parameters()]


@_each
def test_updates_during_backward_are_those_after_it(spec: Optimizer) -> None:
    after, during = _train(spec, _model()), _train_fused(spec, _model())

    assert all(torch.equal(one, other) for one, other in zip(after, during, strict=True))


@_each
def test_every_tensors_gradient_is_limited_by_itself(spec: Optimizer) -> None:
    after, during = _train(spec, _model(), limit=0.05), _train_fused(spec, _model(), limit=0.05)

    for one, other in zip(after, during, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-7)


def test_bfloat16_weights_are_trained_during_backward() -> None:
    model = _model().to(torch.bfloat16)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with FusedBackward(_optimizer(AdamW(lr=0.01, fused_backward=True), model), max_grad_norm=1.0):
        model(torch.ones(5, 8, dtype=torch.bfloat16)).square().mean().backward()

    assert all(not torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))


def test_the_norm_of_all_gradients_together_is_known_afterwards() -> None:
    model, plain = _model(), _model()
    _loss(plain, 0).backward()
    wanted = float(torch.nn.utils.clip_grad_norm_(plain.parameters(), math.inf))

    with FusedBackward(_optimizer(AdamW(fused_backward=True), model), max_grad_norm=0.01) as fused:
        _loss(model, 0).backward()

        assert fused.take_norm() == pytest.approx(wanted)
        assert fused.take_norm() == 0.0


def test_nothing_is_left_behind_after_the_block() -> None:
    model = _model()
    with (
        pytest.raises(RuntimeError, match="stop"),
        FusedBackward(_optimizer(AdamW(fused_backward=True), model), max_grad_norm=None),
    ):
        raise RuntimeError("stop")
    before = [parameter.detach().clone() for parameter in model.parameters()]

    _loss(model, 0).backward()

    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("spec", [AdamW(), ScheduleFreeAdamW()], ids=lambda spec: spec.kind)
def test_one_that_updates_all_parameters_together_is_refused(spec: Optimizer) -> None:
    with pytest.raises(ConfigError, match=r"updates all parameters together .*fused_backward=True"):
        FusedBackward(_optimizer(spec, _model()), max_grad_norm=None)
