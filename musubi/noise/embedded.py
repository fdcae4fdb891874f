"""Guidance that a model was distilled to have as an input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.fields import at_least, field
from musubi.noise.guidance import Branch, ClassifierFree, Guidance, Step

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True)
class Embedded(Guidance):
    """Tell the model the ``scale``, for models that were distilled to follow it in a single pass (Meng et al. 2022).

    ``classifier_free`` above 1 adds the guidance of two passes on top, against the negative prompt.

    Example:
        >>> from musubi import Embedded
        >>> Embedded(scale=2.5).embedded, Embedded(scale=2.5).uses_negative
        (2.5, False)
    """

    kind: ClassVar[str] = "embedded"
    scale: float = field(default=3.5, check=at_least(0))
    classifier_free: float = field(default=1.0, check=at_least(0))

    @property
    def embedded(self) -> float:
        """The scale."""
        return self.scale

    @property
    def uses_negative(self) -> bool:
        """Whether there is a second pass."""
        return self._passes.uses_negative

    def branches(self, step: Step) -> tuple[Branch, ...]:
        """Return the positive branch, with a second pass both."""
        return self._passes.branches(step)

    def combine(self, step: Step, velocities: Mapping[Branch, Tensor]) -> Tensor:
        """Return the model's velocity, with a second pass what classifier-free guidance makes of both."""
        return self._passes.combine(step, velocities)

    @property
    def _passes(self) -> ClassifierFree:
        return ClassifierFree(scale=self.classifier_free)
