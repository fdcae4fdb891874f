"""Guidance by a weakened network: away from what the model says without some of its blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import attrs

from musubi.core.errors import Issue
from musubi.core.fields import at_least, count, each, field, one_of, share
from musubi.noise.guidance import NEGATIVE, POSITIVE, Branch, ClassifierFree, Guidance, Step

if TYPE_CHECKING:
    from torch import Tensor


@attrs.frozen(kw_only=True)
class SkipLayer(Guidance):
    """Ask once more without ``blocks``, from ``start`` to ``end`` (shares of the steps), on the steps ``base`` guides.

    ``mode`` "original" adds ``scale`` times the way from the weakened answer to the prompt's, as Stable Diffusion 3.5
    and diffusers do: a third pass. "uncond" lets the weakened answer to the negative prompt stand in for the full one,
    so that it costs nothing; ``scale`` plays no part.

    Example:
        >>> rule = SkipLayer(blocks=(9,), base=ClassifierFree(scale=6.0))
        >>> [branch.prompt for branch in rule.branches(Step(index=0, total=10, sigma=1.0))]
        ['positive', 'negative', 'positive']
    """

    kind: ClassVar[str] = "skip_layer"
    blocks: tuple[int, ...] = field(check=each(count(0)))
    scale: float = field(default=3.0, check=at_least(0))
    start: float = field(default=0.0, check=share)
    end: float = field(default=0.3, check=share)
    mode: Literal["original", "uncond"] = field(default="original", check=one_of("original", "uncond"))
    base: ClassifierFree = attrs.field(factory=ClassifierFree)

    def problems(self) -> Iterable[Issue]:
        """Yield a lack of blocks, blocks named twice, and an end that is not after the start."""
        if not self.blocks:
            yield Issue("blocks", "names none: the weakened network would be the full one", "name at least one")
        if len(set(self.blocks)) < len(self.blocks):
            yield Issue("blocks", f"names a block twice: {list(self.blocks)}")
        if self.end <= self.start:
            yield Issue("end", f"must be above start ({self.start:g}), got {self.end:g}")

    def misfits(self, *, experts: Sequence[str], blocks: int | None) -> Iterable[Issue]:
        """Yield the blocks that the model does not have."""
        beyond = [index for index in self.blocks if blocks is not None and index >= blocks]
        if beyond:
            way = f"the model has blocks 0 to {blocks - 1}" if blocks else "use another rule"
            yield Issue("blocks", f"there is no block {', '.join(map(str, beyond))} that can be passed by", way)

    @property
    def uses_negative(self) -> bool:
        """Whether the base does."""
        return self.base.uses_negative

    def applies(self, step: Step) -> bool:
        """Tell whether this step asks the weakened network."""
        window = int(self.start * step.total) <= step.index < int(self.end * step.total)
        return window and self.base.applies(step) and (self.mode == "original" or self.uses_negative)

    def branches(self, step: Step) -> tuple[Branch, ...]:
        """Return the base's branches; the weakened one joins them, or takes the place of the negative one."""
        branches = self.base.branches(step)
        if not self.applies(step):
            return branches
        return (*branches, self._weakened) if self.mode == "original" else (POSITIVE, self._weakened)

    def combine(self, step: Step, velocities: Mapping[Branch, Tensor]) -> Tensor:
        """Return ``base + scale (c - k)``, or in "uncond" mode ``k + base.scale (c - k)``, of the weakened ``k``."""
        if not self.applies(step):
            return self.base.combine(step, velocities)
        positive, weakened = velocities[POSITIVE], velocities[self._weakened]
        if self.mode == "uncond":
            return self.base.between(positive, weakened)
        return self.base.combine(step, velocities) + self.scale * (positive - weakened)

    @property
    def _weakened(self) -> Branch:
        full = POSITIVE if self.mode == "original" else NEGATIVE
        return attrs.evolve(full, without=tuple(sorted(self.blocks)))
