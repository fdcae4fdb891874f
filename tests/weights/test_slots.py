from __future__ import annotations

import torch
from torch import nn

from musubi.weights.slots import Slots


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False, device="meta")
        self.second = nn.Linear(2, 2, bias=False, device="meta")
        self.second.weight = self.first.weight
        self.register_buffer("stored", torch.zeros(1, device="meta"))
        self.register_buffer("derived", torch.arange(3), persistent=False)


def test_tied_parameters_are_one_slot_and_stay_tied() -> None:
    model = _Tied()
    slots = Slots(model)

    slots.put("second.weight", torch.ones(2, 2))

    assert slots.required == ("stored", "first.weight")
    assert model.first.weight is model.second.weight
    assert not model.first.weight.is_meta
    assert not model.first.weight.requires_grad


def test_buffers_are_slots_only_if_checkpoints_hold_them() -> None:
    model = _Tied()
    slots = Slots(model)

    slots.put("stored", torch.ones(1))

    assert isinstance(model.get_buffer("stored"), torch.Tensor)
    assert "derived" not in slots.names
    assert slots.still_empty() == ["first.weight", "second.weight"]
