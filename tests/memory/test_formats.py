from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from musubi.memory.formats import FP8, NF4, Cast, Int8, WeightFormat

FORMATS: tuple[WeightFormat, ...] = (
    FP8(),
    FP8("channel"),
    FP8("tensor"),
    FP8(kind=torch.float8_e5m2),
    Int8(),
    Int8("channel"),
    Cast(),
    NF4(),
)
each_format = pytest.mark.parametrize("format", FORMATS, ids=str)


def _weights(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02


def _distributions() -> dict[str, Tensor]:
    """Return weights (256, 1280) of the five distributions of ``spec/memory.md`` 9.2, in bfloat16."""
    torch.manual_seed(0)
    plain = torch.randn(256, 1280) * 0.02
    outliers = plain.clone()
    outliers[torch.rand_like(plain) < 1e-4] *= 50
    student = torch.distributions.StudentT(4.0).sample((256, 1280)) * 0.02
    rows, columns = (torch.randn(shape).exp() for shape in ((256, 1), (1, 1280)))
    found = {
        "normal": plain,
        "outliers": outliers,
        "student": student,
        "rows": plain * rows,
        "columns": plain * columns,
    }
    return {name: weight.bfloat16() for name, weight in found.items()}


def _error(format: WeightFormat, weight: Tensor) -> float:
    return float((_there_and_back(format, weight) - weight.float()).norm() / weight.float().norm())


def _there_and_back(format: WeightFormat, weight: Tensor) -> Tensor:
    stored, scale = format.quantise(weight)
    shape = int(weight.shape[0]), int(weight.shape[1])
    return format.dequantise(stored, None if scale is None else scale.float(), shape=shape, dtype=torch.float32)


@each_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_empty_form_has_the_types_and_shapes_of_a_filled_one(format: WeightFormat, dtype: torch.dtype) -> None:
    stored, scale = format.quantise(_weights(6, 128).to(dtype))
    empty, empty_scale = format.empty((6, 128), dtype=dtype, device=torch.device("meta"))

    assert (empty.shape, empty.dtype) == (stored.shape, stored.dtype)
    if scale is None or empty_scale is None:
        assert scale is empty_scale
    else:
        assert (empty_scale.shape, empty_scale.dtype) == (scale.shape, scale.dtype)


@pytest.mark.parametrize("name", list(_distributions()))
def test_int8_has_much_less_error_than_fp8_at_the_same_bytes(name: str) -> None:
    weight = _distributions()[name]

    assert Int8().empty((256, 1280), dtype=weight.dtype, device=weight.device)[0].element_size() == 1
    assert _error(FP8(), weight) > 1.5 * _error(Int8(), weight)


@pytest.mark.parametrize(
    ("format", "most"), [(FP8(), 0.027), (Int8(), 0.0065), (Int8("channel"), 0.0095), (Cast(), 0.035), (NF4(), 0.1)]
)
def test_the_error_on_normal_weights_is_the_documented_one(format: WeightFormat, most: float) -> None:
    assert 0.6 * most < _error(format, _distributions()["normal"]) < most


@given(seed=st.integers(0, 2**16), rows=st.integers(1, 5), blocks=st.integers(1, 3), power=st.integers(-12, 6))
def test_int8_is_off_by_half_a_step_at_most(seed: int, rows: int, blocks: int, power: int) -> None:
    weight = _weights(rows, 64 * blocks, seed) * 2.0**power

    _, scale = Int8().quantise(weight)
    error = (_there_and_back(Int8(), weight) - weight).view(rows, blocks, 64).abs()

    assert bool((error <= 0.5001 * scale).all())


@given(seed=st.integers(0, 2**16))
def test_int8_is_symmetric(seed: int) -> None:
    weight = _weights(3, 128, seed)

    assert torch.equal(_there_and_back(Int8(), -weight), -_there_and_back(Int8(), weight))


@each_format
def test_chunks_do_not_change_the_bits(format: WeightFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = _weights(37, 192).bfloat16()
    whole = format.quantise(weight)

    monkeypatch.setattr("musubi.memory.scales.CHUNK_ELEMENTS", 400)

    for found, expected in zip(format.quantise(weight), whole, strict=True):
        if found is None or expected is None:
            assert found is expected
        else:
            assert torch.equal(found.reshape(-1).view(torch.uint8), expected.reshape(-1).view(torch.uint8))


@each_format
def test_rows_of_zeros_stay_zero(format: WeightFormat) -> None:
    weight = _weights(4, 128)
    weight[1] = 0

    assert not _there_and_back(format, weight)[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cast_limits_what_is_too_large(dtype: torch.dtype) -> None:
    weight = torch.tensor([[1e6, -1e6, 1.0, 448.0, torch.inf, -torch.inf, torch.nan]]).to(dtype)

    assert _there_and_back(Cast(), weight).tolist() == [[448.0, -448.0, 1.0, 448.0, 448.0, -448.0, 0.0]]
