"""The gradients of a step's batches, added up."""

from __future__ import annotations

import logging
import math
from collections import abc
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Generator, Tensor

from musubi.architecture import Architecture
from musubi.batch import Batch
from musubi.cache.loader import Position
from musubi.core.errors import RunError
from musubi.training.advice import memory_advice
from musubi.training.objective import Measured, Teaching
from musubi.training.setup import Setup
from musubi.training.trainer import Trainer

logger = logging.getLogger(__name__)

_NOT_FINITE = "look at these items in the cache (cache.verify()); a lower learning rate or float32 may help"
_OTHER_SHAPE = "if it is about shapes, the cache was built with other encoders: build it with this trainer's model"

_Batches = abc.Generator[tuple[Position, Batch], None, None]


@attrs.frozen(eq=False)
class Seen:
    """A batch, what was measured on it, how much that counts, and the prior's batch that came with it."""

    batch: Batch
    measured: Measured
    weight: float = 1.0
    prior: Seen | None = None

    @property
    def loss(self) -> float:
        """The loss that the gradients follow."""
        return self.weight * float(self.measured.loss.detach()) + (self.prior.loss if self.prior else 0.0)

    @property
    def sigma(self) -> list[float]:
        """The noise levels of the batch's items."""
        return [float(level) for level in self.measured.sigma]

    @property
    def parts(self) -> tuple[Seen, ...]:
        """Each batch by itself."""
        return (attrs.evolve(self, prior=None), *(self.prior.parts if self.prior else ()))


class Accumulation:
    """Draw this process's batches of a step, one after the other, and add up their gradients in the parameters."""

    def __init__(self, setup: Setup, trainer: Trainer[Architecture], *, taken: int) -> None:
        self._setup, self._trainer = setup, trainer
        self._batches, self._extra = self._opened(taken)

    def go_to(self, taken: int) -> None:
        """Go on with what follows after ``taken`` batches of all processes together."""
        self.close()
        self._batches, self._extra = self._opened(taken)

    def close(self) -> None:
        """Stop reading ahead."""
        self._batches.close()
        if self._extra is not None:
            self._extra.close()

    def add_up(self, *, step: int, taken: int) -> tuple[Seen, ...]:
        """Add the gradients of the batches of ``step``, before which all processes together have taken ``taken``.

        Raises:
            RunError: The device has no memory left, or the model cannot compute a batch.
            CacheError: An entry is missing or damaged.
        """
        processes = self._setup.processes
        first = taken + processes.rank
        return tuple(self._add(step, first + i * processes.count) for i in range(self._trainer.accumulate))

    def _opened(self, taken: int) -> tuple[_Batches, _Batches | None]:
        material = self._setup.material
        prior, loader = material.prior, material.loader
        extra = None if prior is None else prior.batches(prior.position(taken))
        return loader.batches(loader.position(taken)), extra

    def _add(self, step: int, number: int) -> Seen:
        """Add the gradients of one batch, and of one of the prior's; the numbers drawn are those of ``number``."""
        setup = self._setup
        _, batch = next(self._batches)
        with setup.random.micro_batch(number) as generator:
            shares = setup.dealer.deal(setup.material.loader.position(number), len(batch))
            own = self._backward(step, batch, 1.0, generator=generator, shares=shares)
            if self._trainer.prior is None or self._extra is None:
                return own
            _, known = next(self._extra)
            weight = self._trainer.prior.weight
            return attrs.evolve(
                own, prior=self._backward(step, known, weight, generator=generator, teaching=setup.teaching)
            )

    def _backward(self, step: int, batch: Batch, weight: float, **how: Any) -> Seen:
        try:
            return Seen(batch, self._measured(batch, weight, **how), weight)
        except RuntimeError as error:  # torch's own, about memory, shapes, types and devices
            if "out of memory" in str(error):
                logger.debug("out of device memory", exc_info=error)
                hint = memory_advice(self._trainer, batch.bucket)
                # The error's frames hold the very tensors that there was no room for.
                raise _error("out of device memory", step, batch, hint) from error.with_traceback(None)
            message = f"the model could not compute this batch: {(str(error).splitlines() or [''])[0]}"
            raise _error(message, step, batch, _OTHER_SHAPE) from error

    def _measured(
        self,
        batch: Batch,
        weight: float,
        *,
        generator: Generator,
        shares: Tensor | None = None,
        teaching: Teaching | None = None,
    ) -> Measured:
        """Add the gradients of a batch, expert by expert, and return its loss."""
        setup, moved = self._setup, batch.to(str(self._setup.processes.device))
        drawn = setup.objective.draw(moved, generator=generator, shares=shares)
        losses: list[Tensor] = []
        for part in setup.learners.parts(drawn.sigma.tolist()):
            items, own = (moved, drawn) if part.items is None else (moved.select(part.items), drawn.select(part.items))
            loss = setup.objective.error(part.model, items, own, teaching=teaching)
            (loss * (part.share * weight / self._trainer.accumulate)).backward()
            losses.append(loss.detach() * part.share)
        return Measured(loss=losses[0] if len(losses) == 1 else torch.stack(losses).sum(), sigma=drawn.sigma)


def not_finite(step: int, seen: Sequence[Seen]) -> RunError:
    """Return the error that says which batches had no finite loss; all of them if only the gradient had none."""
    parts = [part for one in seen for part in one.parts]
    wrong = [part for part in parts if not math.isfinite(part.loss)]
    named = wrong or parts
    return RunError(
        f"{'the loss' if wrong else 'the gradient'} is not finite",
        step=step,
        items=[item for part in named for item in part.batch.items],
        bucket=named[-1].batch.bucket,
        sigma=[level for part in named for level in part.sigma],
        hint=_NOT_FINITE,
    )


def _error(message: str, step: int, batch: Batch, hint: str) -> RunError:
    return RunError(message, step=step, items=batch.items, bucket=batch.bucket, hint=hint)
