"""Comparisons of models and of what they predict."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def equal(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models have the same tensors under the same names."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def distance(one: Tensor, other: Tensor) -> float:
    """Return the norm of the difference, relative to the other's."""
    return float((one - other).norm() / other.norm())


def gradient(model: nn.Module, name: str) -> Tensor:
    """Return the gradient of a parameter, which it must have."""
    found = model.get_parameter(name).grad
    assert found is not None, name
    return found


def scale_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a model's tensors with the last modulation in diffusers' order: scale before shift."""
    turned = {name: torch.cat(t.chunk(2)[::-1]) for name, t in tensors.items() if name.startswith("norm_out.linear.")}
    return {**tensors, **turned}
