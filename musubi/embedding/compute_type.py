"""The type that a network computes in."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn


def compute_type(model: nn.Module, weight: str) -> torch.dtype:
    """Return the type of activations, which is that of the first layer's ``weight``; also of a model that is wrapped.

    Launchers wrap a model for several processes; its own is then the wrapper's ``module``.
    """
    return cast(nn.Module, getattr(model, "module", model)).get_parameter(weight).dtype
