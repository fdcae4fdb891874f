"""One optimiser step after another, with everything a resume needs kept up to date."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from musubi.architecture import Architecture
from musubi.batch import Batch
from musubi.cache.loader import Position
from musubi.core.errors import ConfigError, Issue, RunError
from musubi.core.events import StepEnded
from musubi.training.objective import Measured
from musubi.training.setup import Setup
from musubi.training.state import RunState
from musubi.training.trainer import Trainer

_NOT_FINITE = "look at these items in the cache (cache.verify()); a lower learning rate or float32 may help"
_MEMORY = "smaller resolution or batch for this bucket, GradientCheckpointing(), FP8Scaled() or more BlockSwap"


class Stepper:
    """Hold the position of a run and move it forward by whole steps.

    ``whole`` is False only while an optimiser update is under way: then the weights are between two steps.
    """

    def __init__(
        self,
        setup: Setup,
        trainer: Trainer[Architecture],
        *,
        settings: Mapping[str, Any],
        resumed: RunState | None,
    ) -> None:
        self._setup, self._trainer, self._settings = setup, trainer, settings
        self.step, self.position = 0, Position(epoch=0, index=0)
        self._losses: list[float] = []
        self._rates: list[float] = []
        self.whole = True
        if resumed is not None:
            self._restore(resumed)
        self.saved_step = self.step
        self._random_before = setup.random.state()
        self._batches = setup.loader.batches(self.position)

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss of every step so far."""
        return tuple(self._losses)

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rate of every step so far."""
        return tuple(self._rates)

    def advance(self) -> StepEnded:
        """Take one optimiser step.

        Raises:
            RunError: The loss or the gradient is not finite, or the device has no memory left.
        """
        seen: list[tuple[Batch, Measured]] = []
        try:
            return self._advance(seen)
        except torch.OutOfMemoryError as error:
            raise self._error("out of device memory", seen, _MEMORY) from error

    def _advance(self, seen: list[tuple[Batch, Measured]]) -> StepEnded:
        setup, epoch, position = self._setup, self.position.epoch, self.position
        self._random_before = setup.random.state()
        rate = self._set_rate()
        with setup.random.swapped_in():
            for _ in range(self._trainer.accumulate):
                position, batch = next(self._batches)
                seen.append((batch, self._backward(batch)))
        norm = self._update(seen)
        self.step, self.position = self.step + 1, position
        self._losses.append(_mean_loss(seen))
        self._rates.append(rate)
        self.whole = True
        self._random_before = setup.random.state()
        return self._ended(seen, epoch, rate, norm)

    def state(self) -> RunState:
        """Return the state after the last whole step."""
        setup = self._setup
        return RunState(
            step=self.step,
            position=self.position,
            settings=self._settings,
            data=setup.loader.content,
            adapter={name: tensor.detach().cpu().clone() for name, tensor in setup.adapters.state_dict().items()},
            optimizer=setup.optimizer.state_dict(),
            generators=self._random_before,
            losses=self.losses,
            rates=self.rates,
        )

    def save(self, folder: Path) -> Path:
        """Let the main process write the state after the last whole step; all wait until it is there."""
        if self._setup.processes.leads:
            self.state().save(folder)
        self._setup.processes.wait()
        self.saved_step = self.step
        return folder

    def close(self) -> None:
        """Stop reading ahead."""
        self._batches.close()

    def _restore(self, resumed: RunState) -> None:
        setup = self._setup
        try:
            setup.adapters.load_state_dict(dict(resumed.adapter))
            setup.optimizer.load_state_dict(dict(resumed.optimizer))
            setup.random.restore(resumed.generators)
        except (RuntimeError, ValueError, KeyError) as error:
            message = f"does not fit this network: {(str(error).splitlines() or [''])[0]}"
            raise ConfigError("cannot resume", [Issue("state", message)]) from error
        self.step, self.position = resumed.step, resumed.position
        self._losses, self._rates = list(resumed.losses), list(resumed.rates)

    def _set_rate(self) -> float:
        factor = self._trainer.schedule.factor(self.step, self._trainer.steps)
        for group, base in zip(self._setup.optimizer.param_groups, self._setup.base_rates, strict=True):
            group["lr"] = base * factor
        return self._setup.base_rates[0] * factor

    def _backward(self, batch: Batch) -> Measured:
        setup = self._setup
        try:
            measured = setup.objective.measure(
                setup.model, batch.to(str(setup.processes.device)), generator=setup.random.noise
            )
            if not torch.isfinite(measured.loss):
                raise self._error("the loss is not finite", [(batch, measured)], _NOT_FINITE)
            (measured.loss / self._trainer.accumulate).backward()
        except torch.OutOfMemoryError as error:
            message = "out of device memory"
            raise RunError(message, step=self.step + 1, items=batch.items, bucket=batch.bucket, hint=_MEMORY) from error
        except RuntimeError as error:  # torch's own, about shapes, types and devices
            message = f"the model could not compute this batch: {(str(error).splitlines() or [''])[0]}"
            hint = "if it is about shapes, the cache was built with other encoders: build it with this trainer's model"
            raise RunError(message, step=self.step + 1, items=batch.items, bucket=batch.bucket, hint=hint) from error
        return measured

    def _update(self, seen: list[tuple[Batch, Measured]]) -> float:
        setup = self._setup
        parameters = list(setup.adapters.parameters())
        setup.processes.average([p.grad for p in parameters if p.grad is not None])
        limit = self._trainer.max_grad_norm
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit if limit else math.inf))
        if not math.isfinite(norm):
            raise self._error("the gradient is not finite", seen, _NOT_FINITE)
        self.whole = False
        setup.optimizer.step()
        setup.optimizer.zero_grad(set_to_none=True)
        return norm

    def _error(self, message: str, seen: list[tuple[Batch, Measured]], hint: str) -> RunError:
        return RunError(
            message,
            step=self.step + 1,
            items=[item for batch, _ in seen for item in batch.items],
            bucket=seen[-1][0].bucket if seen else "",
            sigma=[float(s) for _, measured in seen for s in measured.sigma],
            hint=hint,
        )

    def _ended(self, seen: list[tuple[Batch, Measured]], epoch: int, rate: float, norm: float) -> StepEnded:
        return StepEnded(
            step=self.step,
            total=self._trainer.steps,
            epoch=epoch,
            loss=self._losses[-1],
            lr=rate,
            grad_norm=norm,
            sigma=tuple(float(s) for _, measured in seen for s in measured.sigma),
            items=tuple(item for batch, _ in seen for item in batch.items),
            bucket=seen[-1][0].bucket,
        )


def _mean_loss(seen: list[tuple[Batch, Measured]]) -> float:
    """Return the mean over micro-batches: what the gradients followed."""
    return sum(float(measured.loss.detach()) for _, measured in seen) / len(seen)
