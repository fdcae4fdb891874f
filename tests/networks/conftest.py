"""The small model and an input of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.networks.small import Small


@pytest.fixture
def model() -> Small:
    torch.manual_seed(5)
    return Small().requires_grad_(requires_grad=False).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))
