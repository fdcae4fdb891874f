from __future__ import annotations

import torch
from diffusers.models.normalization import AdaLayerNormContinuous
from torch import Tensor

from musubi.embedding.shift_scale import ShiftScaleNorm, shift_first

MODULE = "last.modulation"


def test_with_its_halves_turned_round_it_is_diffusers_norm() -> None:
    theirs = AdaLayerNormContinuous(8, 8, elementwise_affine=False, eps=1e-6)
    ours = ShiftScaleNorm(8, 8, elementwise_affine=False, eps=1e-6)
    x, conditioning = torch.randn(2, 3, 8), torch.randn(2, 8)

    ours.load_state_dict({name: torch.cat(value.chunk(2)[::-1]) for name, value in theirs.state_dict().items()})

    torch.testing.assert_close(ours(x, conditioning), theirs(x, conditioning))


def test_only_the_rows_of_the_last_modulation_change_places() -> None:
    hook, rows = shift_first(None, module=MODULE), torch.arange(4.0)

    assert torch.equal(_tensor(hook(f"{MODULE}.bias", rows)), torch.tensor([2.0, 3.0, 0.0, 1.0]))
    assert torch.equal(_tensor(hook(f"{MODULE}2.bias", rows)), rows)


def test_the_next_hook_sees_the_original_order() -> None:
    seen: dict[str, Tensor] = {}

    def watch(name: str, tensor: Tensor) -> Tensor:
        seen[name] = tensor
        return 2 * tensor

    stored = shift_first(watch, module=MODULE)(f"{MODULE}.bias", torch.arange(4.0))

    assert torch.equal(seen[f"{MODULE}.bias"], torch.tensor([2.0, 3.0, 0.0, 1.0]))
    assert torch.equal(_tensor(stored), 2 * seen[f"{MODULE}.bias"])


def _tensor(stored: object) -> Tensor:
    assert isinstance(stored, Tensor)
    return stored
