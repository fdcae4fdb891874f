from __future__ import annotations

import pytest
import torch

from musubi.memory import scales
from musubi.memory.scales import Mode


@pytest.mark.parametrize(
    ("shape", "mode", "expected", "form"),
    [
        ((3, 128), "block", "block", (3, 2, 1)),
        ((3, 96), "block", "channel", (3, 1)),
        ((3, 128), "channel", "channel", (3, 1)),
        ((3, 96), "tensor", "tensor", ()),
        ((5,), "block", "tensor", ()),
        ((2, 3, 64), "channel", "tensor", ()),
    ],
)
def test_what_does_not_divide_falls_back(
    shape: tuple[int, ...], mode: Mode, expected: Mode, form: tuple[int, ...]
) -> None:
    assert scales.effective_mode(shape, mode, 64) == expected
    assert scales.scale_shape(shape, mode=mode) == form


@pytest.mark.parametrize("form", [(4, 2, 1), (4, 1), ()])
def test_chunks_cover_every_group_once(form: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scales, "CHUNK_ELEMENTS", 300)
    groups = scales.grouped(torch.zeros(4, 128), form)

    for rows in scales.chunks(groups):
        assert groups[rows].numel() <= 300
        groups[rows] += 1

    assert bool((groups == 1).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("special", [0.0, float("inf"), float("-inf"), float("nan"), -1e-7])
def test_the_largest_is_that_of_the_absolute_values(special: float, dtype: torch.dtype) -> None:
    groups = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    groups[1, 2] = special
    groups[1, 3, 5] = special

    found, expected = scales.largest(groups), groups.abs().amax(dim=-1, keepdim=True)

    assert found.dtype == dtype
    assert torch.equal(found.nan_to_num(-1.0), expected.nan_to_num(-1.0))


def test_nothing_has_no_chunks() -> None:
    assert list(scales.chunks(torch.empty(0, 64))) == []
