from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from musubi.weights import lifting
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.companions import Scale
from musubi.weights.lifting import cut, lift, read_scale, scaled


@pytest.mark.parametrize("form", [(), (6, 1), (6, 4, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.bfloat16], ids=str)
@pytest.mark.parametrize("start", [0, 2])
def test_rows_are_lifted_with_their_own_scales_in_chunks(
    form: tuple[int, ...], dtype: torch.dtype, start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifting, "_AT_ONCE", 20)  # two rows
    generator = torch.Generator().manual_seed(1)
    weight = (torch.randn(6, 8, generator=generator) * 30).to(dtype)
    scale = torch.rand(form, generator=generator) + 0.5
    save_file({"w": weight, "s": scale}, tmp_path / "m.safetensors")
    target = torch.empty(3, 8)

    with open_checkpoint(tmp_path) as checkpoint:
        lift(checkpoint, "w", read_scale(checkpoint, Scale("s", form)), target, start=start)

    by_hand = weight.float().view(6, 4, 2) * (scale if len(form) == 3 else scale[..., None] if form else scale)
    assert torch.equal(target, by_hand.view(6, 8)[start : start + 3])


def test_scales_are_cut_unless_one_is_for_all() -> None:
    assert cut(torch.arange(6.0)[:, None], slice(2, 4)).tolist() == [[2.0], [3.0]]
    assert cut(torch.tensor(5.0), slice(2, 4)) == 5.0


def test_the_product_is_of_float32_whatever_the_scale_is() -> None:
    stored = torch.tensor([[3.0, 5.0]]).to(torch.float8_e4m3fn)
    scale = torch.tensor(0.1).bfloat16()

    assert torch.equal(scaled(stored, scale), stored.float() * scale.float())
