from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi.memory.quant_linear import QuantLinear


def _pair(*, bias: bool = True) -> tuple[QuantLinear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(128, 10, bias=bias)
    quantised = QuantLinear.of(plain)
    plain.weight.data = quantised.dequantised()
    return quantised, plain.requires_grad_(requires_grad=False)


@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_what_a_linear_of_the_dequantised_weight_computes(*, bias: bool) -> None:
    quantised, plain = _pair(bias=bias)
    first, second = (torch.ones(3, 128).requires_grad_() for _ in range(2))

    outputs = quantised(first), plain(second)
    for output in outputs:
        output.square().sum().backward()

    assert torch.equal(*outputs)
    assert first.grad is not None
    assert second.grad is not None
    assert torch.equal(first.grad, second.grad)


def test_under_autocast_it_computes_in_the_autocast_type() -> None:
    quantised, plain = _pair()
    values = torch.randn(3, 128)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = quantised(values), plain(values)

    assert outputs[0].dtype == torch.bfloat16
    assert torch.equal(*outputs)


def test_autograd_keeps_no_copy_of_the_dequantised_weight() -> None:
    quantised, _ = _pair()
    own = {p.untyped_storage().data_ptr() for p in quantised.parameters()}
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        quantised(torch.randn(3, 128).requires_grad_())

    assert {tensor.untyped_storage().data_ptr() for tensor in kept} == own - {
        p.untyped_storage().data_ptr() for name, p in quantised.named_parameters() if name == "bias"
    }


def test_its_gradient_is_the_derivative_at_second_order_too() -> None:
    quantised, _ = _pair()
    quantised.scale.data = quantised.scale.data.double()
    assert quantised.bias is not None
    quantised.bias.data = quantised.bias.data.double()

    assert torch.autograd.gradcheck(quantised, torch.randn(2, 128, dtype=torch.double, requires_grad=True))
    assert torch.autograd.gradgradcheck(quantised, torch.randn(2, 128, dtype=torch.double, requires_grad=True))


def test_an_empty_one_has_the_sizes_of_a_filled_one() -> None:
    filled, _ = _pair()
    empty = QuantLinear.of(nn.Linear(128, 10, device="meta"))

    assert {n: (p.shape, p.dtype) for n, p in empty.named_parameters()} == {
        n: (p.shape, p.dtype) for n, p in filled.named_parameters()
    }
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert not any(parameter.requires_grad for parameter in empty.parameters())
