"""Stratified draws: as many from each equal share of a distribution as from any other."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def shares(count: int, strata: int, *, generator: Generator) -> Tensor:
    """Draw ``count`` numbers in [0, 1], float64 of shape (count,), spread evenly over ``strata`` equal parts, shuffled.

    Each part holds the same number of draws, or one less: which ones, and where inside them the draws lie, is random.
    So every draw alone is uniform. ``generator`` lives on the CPU. The reference's ``num_timestep_buckets`` draws
    alike, but may leave single parts without their share where the parts do not divide the count.
    """
    part = torch.cat(
        [
            torch.arange(strata).repeat(count // strata),
            torch.randperm(strata, generator=generator)[: count % strata],
        ]
    )
    spread = (part + torch.rand(count, generator=generator, dtype=torch.float64)) / strata
    return spread[torch.randperm(count, generator=generator)]
