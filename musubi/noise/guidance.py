"""Steering a generation: which predictions a step needs, and how they make one velocity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from musubi.core.fields import at_least, field
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

Branch = Literal["positive", "negative"]
"""Under which conditions the network is asked."""


@attrs.frozen(kw_only=True)
class Step:
    """Where a generation is: step ``index`` (from 0) of ``total``, at the noise level ``sigma``."""

    index: int
    total: int
    sigma: float


@attrs.frozen(kw_only=True)
class Guidance(Spec, ABC):
    """A rule that asks the network once or more for every step and combines the answers."""

    family: ClassVar[str] = "guidance"

    @property
    @abstractmethod
    def uses_negative(self) -> bool:
        """Whether any step needs the negative prompt: if not, it is not even encoded."""

    @abstractmethod
    def branches(self, step: Step) -> tuple[Branch, ...]:
        """Return what this step asks the network, in the order of asking."""

    @abstractmethod
    def combine(self, step: Step, velocities: Mapping[Branch, Tensor]) -> Tensor:
        """Return the velocity to follow from the float32 answers of this step's branches."""


@attrs.frozen(kw_only=True)
class ClassifierFree(Guidance):
    """Go ``scale`` times as far from the negative prompt's velocity as the prompt's does (Ho and Salimans 2022).

    At a ``scale`` of 1 the negative pass is left out: it would cost half the time and change nothing.
    """

    kind: ClassVar[str] = "classifier_free"
    scale: float = field(default=5.0, check=at_least(0))

    @property
    def uses_negative(self) -> bool:
        """Whether the scale differs from 1."""
        return self.scale != 1.0

    def branches(self, step: Step) -> tuple[Branch, ...]:
        """Return both branches, or the positive one alone at a scale of 1."""
        return ("positive", "negative") if self.uses_negative else ("positive",)

    def combine(self, step: Step, velocities: Mapping[Branch, Tensor]) -> Tensor:
        """Return ``u + scale (c - u)``."""
        positive = velocities["positive"]
        if "negative" not in velocities:
            return positive
        negative = velocities["negative"]
        return negative + self.scale * (positive - negative)
