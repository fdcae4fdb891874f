from __future__ import annotations

import pytest
import torch
from torch import nn

from musubi.embedding.compute_type import compute_type


class Wrapper(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_that_of_the_first_layer_also_behind_a_wrapper(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(2, 2).to(dtype), nn.Linear(2, 2).to(torch.float64))

    assert compute_type(model, "0.weight") == dtype
    assert compute_type(Wrapper(model), "0.weight") == dtype
