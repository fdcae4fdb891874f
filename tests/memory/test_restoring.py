from __future__ import annotations

import pytest
import torch
from torch import Tensor

from musubi.memory import scales
from musubi.memory.live import LiveBytes
from musubi.memory.restoring import restore

KINDS = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8)
FLOATS = (torch.bfloat16, torch.float16, torch.float32)
FORMS = (None, (), (1,), (8, 1), (8, 4, 1))
each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def _every_number(kind: torch.dtype) -> Tensor:
    """Return all finite numbers of a type, as (8, 32)."""
    codes = torch.arange(256, dtype=torch.uint8).view(kind)
    return torch.where(codes.float().isfinite(), codes.float(), 0.0).to(kind).view(8, 32)


def _scales(form: tuple[int, ...] | None, dtype: torch.dtype) -> Tensor | None:
    if form is None:
        return None
    return torch.rand(form, generator=torch.Generator().manual_seed(0)).add_(0.1).mul_(1e-3).to(dtype)


def _expected(stored: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    if scale is None:
        return stored.to(dtype)
    product = scales.grouped(stored.float(), scale.shape) * scale.float()
    return product.view(stored.shape).to(dtype)


@pytest.mark.parametrize("compiling", [False, True], ids=["pieces", "one_kernel"])
@pytest.mark.parametrize("form", FORMS, ids=str)
@each_kind
def test_every_number_comes_back_times_its_scale_rounded_once(
    kind: torch.dtype, form: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch, *, compiling: bool
) -> None:
    stored = _every_number(kind)
    monkeypatch.setattr(scales, "CHUNK_ELEMENTS", 100)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)  # then what accelerators do

    for scale_type in FLOATS:
        scale = _scales(form, scale_type)
        for dtype in FLOATS:
            found = restore(stored, scale, dtype)
            assert found.dtype == dtype
            assert torch.equal(found, _expected(stored, scale, dtype)), (scale_type, dtype)


@each_kind
def test_flushing_of_tiny_floats_changes_nothing(kind: torch.dtype) -> None:
    stored, scale = _every_number(kind), _scales((8, 1), torch.bfloat16)
    expected = restore(stored, scale, torch.bfloat16)

    torch.set_flush_denormal(True)
    try:
        found = restore(stored, scale, torch.bfloat16)
    finally:
        torch.set_flush_denormal(False)

    assert torch.equal(found, expected)


@pytest.mark.parametrize("scale_type", [torch.bfloat16, torch.float32])
@each_kind
def test_nothing_else_of_the_weights_size_is_made(kind: torch.dtype, scale_type: torch.dtype) -> None:
    stored = torch.zeros(4096, 1024, dtype=torch.int8).view(kind)
    scale = torch.ones(4096, 16, 1, dtype=scale_type)

    with LiveBytes([stored, scale]) as live:
        restored = restore(stored, scale, torch.bfloat16)

    assert restored.nbytes <= live.take().peak <= restored.nbytes + 12 * scales.CHUNK_ELEMENTS
