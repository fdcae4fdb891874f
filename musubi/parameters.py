"""Trained parameters in groups: what networks hand to optimisers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from torch import nn


@attrs.frozen(kw_only=True, eq=False)
class ParameterGroup:
    """Parameters that learn at ``rate`` times the optimiser's rate; ``name`` is what logs call them."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    rate: float = 1.0
