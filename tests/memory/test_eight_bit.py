from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from musubi.memory import eight_bit
from musubi.memory.eight_bit import Compute
from musubi.memory.formats import FP8, Int8, WeightFormat
from musubi.memory.quant_linear import QuantLinear

PAIRS: tuple[tuple[WeightFormat, Compute, float], ...] = (
    (Int8("channel"), "int8", 0.02),
    (FP8("channel"), "fp8", 0.05),
    (FP8("tensor"), "fp8", 0.05),
)
each_pair = pytest.mark.parametrize(("format", "compute", "most"), PAIRS, ids=str)


def _linears(
    format: WeightFormat, compute: Compute, *, inputs: int = 256, outputs: int = 64
) -> tuple[QuantLinear, nn.Linear]:
    torch.manual_seed(0)
    plain = nn.Linear(inputs, outputs).requires_grad_(requires_grad=False)
    return QuantLinear.of(plain, format=format, compute=compute), plain


def _error(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None
    assert expected is not None
    return float((found - expected).detach().norm() / expected.detach().norm())


@each_pair
@pytest.mark.parametrize("rows", [1, 20, 70])
def test_products_in_8_bits_are_near_the_exact_ones_forward_and_backward(
    format: WeightFormat, compute: Compute, most: float, rows: int
) -> None:
    quantised, plain = _linears(format, compute)
    first, second = (torch.randn(2, rows, 256, generator=_seeded()).requires_grad_() for _ in range(2))
    gradient = torch.randn(2, rows, 64, generator=_seeded())

    outputs = quantised(first), plain(second)
    for output in outputs:
        output.backward(gradient)

    assert 0 < _error(outputs[0], outputs[1]) < most
    assert 0 < _error(first.grad, second.grad) < most


@each_pair
def test_the_products_are_exact_where_8_bits_hold_everything(
    format: WeightFormat, compute: Compute, most: float
) -> None:
    quantised, _ = _linears(format, compute)
    quantised.bias = None
    value = torch.randint(-7, 8, (5, 256), generator=_seeded()).float()
    value[:, 0] = 127 if compute == "int8" else 448

    assert _error(quantised(value), value @ quantised.dequantised().T) < 1e-6 < most


@pytest.mark.parametrize(("inputs", "outputs"), [(100, 64), (256, 10)])
def test_sizes_that_the_kernels_do_not_take_are_dequantised(inputs: int, outputs: int) -> None:
    quantised, _ = _linears(Int8("channel"), "int8", inputs=inputs, outputs=outputs)
    value = torch.randn(4, inputs)

    expected = nn.functional.linear(value, quantised.dequantised(), quantised.bias)

    assert torch.equal(quantised(value), expected)


@each_pair
def test_rows_of_zeros_give_zeros(format: WeightFormat, compute: Compute, most: float) -> None:
    quantised, _ = _linears(format, compute)
    quantised.bias = None

    assert not quantised(torch.zeros(3, 256)).any()
    assert most


@each_pair
def test_many_rows_are_worked_on_in_parts(
    format: WeightFormat, compute: Compute, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantised, _ = _linears(format, compute)
    value = torch.randn(100, 256, generator=_seeded())
    whole = quantised(value)

    monkeypatch.setattr(eight_bit, "_AT_ONCE", 40 * 256)

    assert _error(quantised(value), whole) < 1e-6 < most


@each_pair
def test_no_rows_give_no_rows(format: WeightFormat, compute: Compute, most: float) -> None:
    quantised, _ = _linears(format, compute)
    value = torch.empty(2, 0, 256, requires_grad=True)

    output = quantised(value)
    output.sum().backward()

    assert output.shape == (2, 0, 64)
    assert value.grad is not None
    assert most


@each_pair
def test_a_row_that_is_not_a_number_stays_so_and_spoils_no_other(
    format: WeightFormat, compute: Compute, most: float
) -> None:
    quantised, _ = _linears(format, compute)
    value = torch.randn(40, 256, generator=_seeded())
    clean = quantised(value)
    value[3, 7] = float("nan")

    output = quantised(value)

    assert bool(output[3].isnan().all())
    assert _error(output[4:], clean[4:]) < 1e-6 < most


@each_pair
def test_autograd_keeps_only_the_stored_numbers(format: WeightFormat, compute: Compute, most: float) -> None:
    quantised, _ = _linears(format, compute)
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        quantised(torch.randn(40, 256).requires_grad_())

    assert {tensor.data_ptr() for tensor in kept} == {
        p.data_ptr() for n, p in quantised.named_parameters() if n != "bias"
    }
    assert most


@pytest.mark.parametrize(("compute", "needed"), [("int8", "7.5"), ("fp8", "8.9")])
def test_a_device_that_cannot_is_named_with_its_capability(
    compute: Compute, needed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))

    assert not list(eight_bit.device_issues(torch.device("cpu"), compute))
    for device, found in (("cuda", "compute capability 7.0"), ("meta", "meta")):
        (issue,) = eight_bit.device_issues(torch.device(device), compute)
        assert f"{needed}, this is {found}" in issue.message
        assert 'compute="weights" runs everywhere' in issue.hint


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)
