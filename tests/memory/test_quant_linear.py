from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi.memory.eight_bit import Compute
from musubi.memory.formats import FP8, NF4, Cast, Int8, WeightFormat
from musubi.memory.quant_linear import QuantLinear

FORMATS: tuple[WeightFormat, ...] = (FP8(), FP8("channel"), FP8("tensor"), Int8(), Int8("channel"), Cast(), NF4())
each_format = pytest.mark.parametrize("format", FORMATS, ids=str)


def _pair(*, bias: bool = True, format: WeightFormat | None = None) -> tuple[QuantLinear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(128, 10, bias=bias)
    quantised = QuantLinear.of(plain, format=format)
    plain.weight.data = quantised.dequantised()
    return quantised, plain.requires_grad_(requires_grad=False)


@each_format
@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_what_a_linear_of_the_dequantised_weight_computes(format: WeightFormat, *, bias: bool) -> None:
    quantised, plain = _pair(bias=bias, format=format)
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


@each_format
def test_autograd_keeps_no_copy_of_the_dequantised_weight(format: WeightFormat) -> None:
    quantised, _ = _pair(format=format)
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
    assert quantised.scale is not None
    quantised.scale.data = quantised.scale.data.double()
    assert quantised.bias is not None
    quantised.bias.data = quantised.bias.data.double()

    assert torch.autograd.gradcheck(quantised, torch.randn(2, 128, dtype=torch.double, requires_grad=True))
    assert torch.autograd.gradgradcheck(quantised, torch.randn(2, 128, dtype=torch.double, requires_grad=True))


@each_format
def test_an_empty_one_has_the_sizes_of_a_filled_one(format: WeightFormat) -> None:
    filled, _ = _pair(format=format)
    empty = QuantLinear.of(nn.Linear(128, 10, device="meta"), format=format)

    assert {n: (p.shape, p.dtype) for n, p in empty.named_parameters()} == {
        n: (p.shape, p.dtype) for n, p in filled.named_parameters()
    }
    assert all(parameter.is_meta for parameter in empty.parameters())
    assert not any(parameter.requires_grad for parameter in empty.parameters())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint8, torch.int8])
def test_it_refuses_what_was_rounded_to_the_type_of_its_weight(dtype: torch.dtype) -> None:
    quantised, _ = _pair()

    with pytest.raises(TypeError, match="rounded to the type of its stored weight"):
        quantised(torch.ones(3, 128).to(dtype))


@pytest.mark.parametrize(
    ("format", "compute"), [(FP8(), None), (NF4(), None), (Int8("channel"), "int8"), (FP8("channel"), "fp8")], ids=str
)
def test_it_compiles_as_one_graph_for_any_number_of_rows(format: WeightFormat, compute: Compute | None) -> None:
    torch.manual_seed(0)
    quantised = QuantLinear.of(nn.Linear(128, 16), format=format, compute=compute)
    compiled = torch.compile(quantised, backend="aot_eager", fullgraph=True, dynamic=True)

    for rows in (40, 50):
        first, second = (torch.randn(rows, 128).requires_grad_() for _ in range(2))
        second.data.copy_(first.data)
        outputs = quantised(first), compiled(second)
        for output in outputs:
            output.square().sum().backward()
        assert torch.equal(*outputs)
        assert first.grad is not None
        assert second.grad is not None
        assert torch.equal(first.grad, second.grad)
