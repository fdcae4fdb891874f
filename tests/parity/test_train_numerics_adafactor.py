"""Adafactor during backward gives the reference's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from musubi.optim.adafactor import Adafactor
from musubi.optim.fused import FusedBackward
from musubi.parameters import ParameterGroup
from tests.parity.cases import vector_cases

CASES = [case for case in vector_cases("train_numerics") if case["kind"] == "adafactor_fused_fp32"]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_train_numerics_adafactor_during_backward_equals_the_reference(case: dict[str, Any]) -> None:
    options = {name: value for name, value in case["args"].items() if value is not None}  # a rate of its own has no lr
    parameters = [nn.Parameter(torch.tensor(value)) for value in case["init"]]
    group = ParameterGroup(name="unet", parameters=tuple(parameters))

    with FusedBackward(Adafactor(**options, fused_backward=True).build([group]), max_grad_norm=None):
        for gradients, expected in zip(case["grads"], case["params_after"], strict=True):
            _backward(parameters, [torch.tensor(gradient) for gradient in gradients])

            for parameter, value in zip(parameters, expected, strict=True):
                torch.testing.assert_close(parameter.detach(), torch.tensor(value), rtol=1e-5, atol=1e-7)


def _backward(parameters: list[nn.Parameter], gradients: list[Tensor]) -> None:
    """Let every parameter have a gradient by way of autograd."""
    total = sum((parameter * gradient).sum() for parameter, gradient in zip(parameters, gradients, strict=True))
    assert isinstance(total, Tensor)
    total.backward()
