"""The toy with two experts, as Wan 2.2 has them: networks of one form and different weights for two ranges of noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import attrs

from musubi.architecture import Expert
from musubi.core.refs import WeightsRef
from musubi.testing.toy import DrawnWeights, Toy, ToyDenoiser, original_weights
from musubi.weights.checkpoint import Checkpoint, open_checkpoint

BOUNDARY = 0.75
HIGH = Expert(name="high", component="dit_high", low=BOUNDARY)
LOW = Expert(name="low", component="dit_low", high=BOUNDARY)


@attrs.frozen(kw_only=True)
class TwoToys(Toy):
    """A toy whose noise levels from 0.75 on are another network's."""

    kind: ClassVar[str] = "two_toys"

    @property
    def experts(self) -> tuple[Expert, ...]:
        return HIGH, LOW

    def default_weights(self) -> Mapping[str, WeightsRef]:
        return {component: WeightsRef(f"toy-{component}") for component in ("dit_high", "dit_low", "vae", "text")}

    def denoiser(self) -> TwoToysDenoiser:
        return TwoToysDenoiser(self)

    def alone(self, expert: Expert) -> Toy:
        """Return a toy with one network, which has this expert's weights."""
        return Toy(dim=self.dim, depth=self.depth, seed=self.seed + (expert.name == "low"))


@attrs.frozen
class TwoToysDenoiser(ToyDenoiser):
    def _open(self, expert: Expert) -> Checkpoint:
        assert isinstance(self.toy, TwoToys)
        ref = self.toy.weight(expert.component)
        if expert.component in self.toy.weights:
            return open_checkpoint(ref.resolve())
        return Checkpoint([DrawnWeights(path=Path(ref.name), tensors=original_weights(self.toy.alone(expert)))])
