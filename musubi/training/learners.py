"""The experts of a run: which of them is asked at which noise level, and with what is trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import attrs
from torch import Tensor, nn

from musubi.architecture import Denoiser, Expert
from musubi.batch import Batch
from musubi.inference.denoising import ExpertReady, Ready
from musubi.memory.together import Use
from musubi.networks.trained import Trained


@attrs.frozen(kw_only=True, eq=False)
class Learner:
    """An expert's loaded model, with what is trained on it; None where it is only sampled with."""

    expert: Expert
    model: nn.Module
    trained: Trained | None


@attrs.frozen(kw_only=True, eq=False)
class Part:
    """Items of a batch that one model is asked about; ``items`` None are all of them."""

    model: nn.Module
    items: tuple[int, ...] | None
    share: float = 1.0


@attrs.frozen(kw_only=True, eq=False)
class Learners:
    """All experts that a run has loaded, and what lets one of them, by name, have the device."""

    all: tuple[Learner, ...]
    use: Use

    @property
    def trained(self) -> tuple[Learner, ...]:
        """Those that learn."""
        return tuple(one for one in self.all if one.trained is not None)

    def parts(self, levels: Sequence[float]) -> Iterator[Part]:
        """Yield the parts of a batch whose items have these noise levels, one for each expert that is responsible.

        Each has the device from when it is yielded until the next. Because every item has the expert of its own
        level, the levels are distributed as drawn whatever the size of a batch. A single learner has all items.
        """
        learners = self.trained
        for one in learners:
            items = tuple(i for i, level in enumerate(levels) if len(learners) == 1 or one.expert.covers(level))
            if items:
                self.use(one.expert.name)
                whole = len(items) == len(levels)
                yield Part(model=one.model, items=None if whole else items, share=len(items) / len(levels))

    def responsible(self, level: float) -> nn.Module:
        """Return the trained model for a noise level, ready to be asked."""
        learners = self.trained
        found = next(one for one in learners if len(learners) == 1 or one.expert.covers(level))
        self.use(found.expert.name)
        return found.model

    def ready(self, denoiser: Denoiser[Any]) -> Ready:
        """Return all experts with their adapters, for sampling."""
        return Ready.of(denoiser, [_ready(one) for one in self.all], self.use)


def _ready(one: Learner) -> ExpertReady:
    return ExpertReady(expert=one.expert, model=one.model, adapters=() if one.trained is None else (one.trained,))


class MeasuresLoss(Protocol):
    """What measures the loss of items at a given noise level on a given model."""

    @property
    def denoiser(self) -> Denoiser[Any]:
        """What makes clean latents of a batch."""
        ...

    def loss_at(self, model: nn.Module, batch: Batch, sigma: Tensor, noise: Tensor) -> Tensor:
        """Return each item's loss."""
        ...


@attrs.frozen(eq=False)
class ByLevel:
    """An objective that asks the expert of the noise level, whichever model it is given."""

    objective: MeasuresLoss
    learners: Learners

    @property
    def denoiser(self) -> Denoiser[Any]:
        """What makes clean latents of a batch."""
        return self.objective.denoiser

    def loss_at(self, model: nn.Module, batch: Batch, sigma: Tensor, noise: Tensor) -> Tensor:
        """Return each item's loss at the one noise level that all of them have."""
        return self.objective.loss_at(self.learners.responsible(float(sigma[0])), batch, sigma, noise)
