"""Keeping what the model knew: pictures of the general kind beside those of the subject."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import attrs

from musubi.architecture import Architecture
from musubi.cache.cache import Cache
from musubi.core.fields import field, one_of, positive
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from musubi.networks.trained import Trained


@attrs.frozen(kw_only=True)
class PriorPreservation(Spec):
    """Add to every batch one of a regularisation dataset, so that the model keeps what it knew of that class.

    ``target`` is what these pictures teach: ``base`` is what the model without the adapters predicts for them (they can
    be any pictures of the class, real ones too), ``data`` is the pictures themselves, best drawn by the base model
    (Ruiz et al. 2022, https://arxiv.org/abs/2208.12242, section 4.2). Their loss counts ``weight`` times.

    Example:
        >>> from musubi import PriorPreservation, Wan, WanCache
        >>> PriorPreservation(cache=WanCache("cache/dogs", model=Wan.t2v_14b()), weight=0.5).target
        'base'
    """

    cache: Cache[Architecture]
    weight: float = field(default=1.0, check=positive)
    target: Literal["base", "data"] = field(default="base", check=one_of("base", "data"))


@contextmanager
def untrained(trained: Trained) -> Generator[None]:
    """Let the model predict as it did before training, without dropout, inside the block."""
    training = trained.training
    trained.eval()
    try:
        with trained.switched_off():
            yield
    finally:
        trained.train(training)
