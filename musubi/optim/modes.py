"""The two modes of schedule-free optimisers: weights to go on with, and weights to use."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from musubi.optim.exact_state import parameters_of


@contextmanager
def evaluating(optimizer: torch.optim.Optimizer) -> Generator[None]:
    """Let the parameters be those to save, validate and sample with; afterwards training goes on from its own.

    Only schedule-free optimisers tell the two apart; for others the block changes nothing. The way to the other weights
    and back is arithmetic that rounds, so a copy of the parameters is kept meanwhile: a run that looks at its weights
    is the same, bit for bit, as one that does not. Save an optimiser's state outside of the block.
    """
    to_use, to_train = getattr(optimizer, "eval", None), getattr(optimizer, "train", None)
    if to_use is None or to_train is None:
        yield
        return
    parameters = parameters_of(optimizer.param_groups)
    kept = [parameter.detach().clone() for parameter in parameters]
    to_use()
    try:
        yield
    finally:
        to_train()
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
