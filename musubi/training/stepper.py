"""One optimiser step after another, with everything a resume needs kept up to date."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from musubi.architecture import Architecture
from musubi.cache.loader import Position
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError, Issue, RunError
from musubi.core.events import RolledBack, StepEnded, Validated, WeightNorms
from musubi.optim.places import move_state
from musubi.optim.rates import effective_rates
from musubi.training.accumulation import Accumulation, Seen, not_finite
from musubi.training.setup import Setup
from musubi.training.sharding import divided, divided_moments, limit_gradients
from musubi.training.state import RunState
from musubi.training.trainer import Trainer

_PATIENCE = 10
"""Steps in a row that may be skipped, and times that a run may be rolled back without getting further."""


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
        cancel: CancelToken,
    ) -> None:
        self._setup, self._trainer, self._settings, self._cancel = setup, trainer, settings, cancel
        self._parameters = [p for group in setup.trained.groups() for p in group.parameters]
        self.step, self.taken = 0, 0
        self._agreed = False
        self._losses: list[float] = []
        self._rates: list[float] = []
        self.validations: list[Validated] = []
        self.whole = True
        if resumed is not None:
            self._restore(resumed)
        self.saved_step = self.step
        self._trouble, self._furthest = 0, self.step
        self._safe: RunState | None = None
        self.remember()
        self._batches = Accumulation(setup, trainer, taken=self.taken)

    @property
    def position(self) -> Position:
        """Where the next batch is."""
        return self._setup.material.loader.position(self.taken)

    @property
    def stopped(self) -> bool:
        """Whether a stop was asked for; several processes agree on it with a step, so that all take equally many."""
        return self._agreed or (self._setup.processes.count == 1 and self._cancel.cancelled)

    @property
    def losses(self) -> tuple[float, ...]:
        """The loss of every step so far."""
        return tuple(self._losses)

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rate of every step so far."""
        return tuple(self._rates)

    def advance(self) -> StepEnded | RolledBack:
        """Take one optimiser step, or go back where one failed and the trainer says so.

        Raises:
            RunError: The loss or the gradient is not finite, or the device has no memory left.
        """
        epoch = self.position.epoch
        self._set_rates()
        self.whole = not self._trainer.optimizer.fused_backward
        seen, failure = self._add_up()
        loss, norm = self._reduce(seen, failure)
        finite = math.isfinite(loss) and math.isfinite(norm)
        if not finite and self._trainer.on_nonfinite == "roll_back":
            return self._roll_back(seen)
        if not finite:
            self._tolerate(seen)
        norms = self._update() if finite else None
        self._setup.optimizer.zero_grad(set_to_none=True)
        rates = effective_rates(self._setup.optimizer)
        self._count(loss, rates, finite=finite)
        return self._ended(seen, epoch, norm, rates, norms, skipped=not finite)

    def state(self) -> RunState:
        """Return the state after the last whole step; of a divided model, all processes ask for it at once."""
        setup = self._setup
        trained, optimizer, averages = self._kept()
        return RunState(
            step=self.step,
            taken=self.taken,
            attempt=setup.random.attempt,
            settings=self._settings,
            data=setup.material.content,
            trained=trained,
            optimizer=optimizer,
            averages=averages,
            losses=self.losses,
            rates=self.rates,
            validations=tuple(self.validations),
        )

    def save(self, folder: Path, *, together: bool = True) -> Path:
        """Let the main process write the state after the last whole step.

        All processes wait until it is there, unless they are not ``together`` because one of them failed.
        """
        if together:
            self._setup.processes.every(partial(self._write, folder))
        else:
            self._write(folder)
        self.saved_step = self.step
        self.remember()
        return folder

    def _write(self, folder: Path) -> None:
        leads = self._setup.processes.leads
        if leads or self.divided:
            state = self.state()
            if leads:
                state.save(folder)

    @property
    def divided(self) -> bool:
        """Whether no process has the whole state, so that only all together can save it."""
        return self._setup.sharding is not None

    def _kept(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any], Mapping[str, Tensor]]:
        """Return weights, what the optimiser knows, and averages; the weights as copies on the host."""
        setup = self._setup
        trained, optimizer = setup.trained.state_dict(), setup.optimizer.state_dict()
        averages = setup.averages.state_dict() if setup.averages is not None else {}
        if setup.sharding is not None:
            return setup.sharding.gathered((trained, optimizer, averages))
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in trained.items()}, optimizer, averages

    def remember(self) -> None:
        """Keep the present state in memory to go back to, if the trainer wants that."""
        if self._trainer.on_nonfinite == "roll_back":
            state = self.state()
            self._safe = attrs.evolve(state, optimizer=copy.deepcopy(state.optimizer))

    def close(self) -> None:
        """Stop reading ahead."""
        self._batches.close()

    def _restore(self, resumed: RunState) -> None:
        setup = self._setup
        here = setup.trained.state_dict()
        try:
            setup.trained.load_state_dict(divided(resumed.trained, here))
            setup.optimizer.load_state_dict(divided_moments(copy.deepcopy(dict(resumed.optimizer)), setup.optimizer))
            if not self.divided:
                move_state(setup.optimizer, setup.processes.device)
            if setup.averages is not None:
                setup.averages.load_state_dict(divided(resumed.averages, here))
        except (RuntimeError, ValueError, KeyError) as error:
            message = f"does not fit this network: {(str(error).splitlines() or [''])[0]}"
            raise ConfigError("cannot resume", [Issue("state", message)]) from error
        self.step, self.taken = resumed.step, resumed.taken
        setup.random.attempt = resumed.attempt
        self._losses, self._rates = list(resumed.losses), list(resumed.rates)
        self.validations = list(resumed.validations)

    def _set_rates(self) -> None:
        if self._trainer.optimizer.own_schedule:
            return
        factor = self._trainer.schedule.factor(self.step, self._setup.material.total)
        for group, base in zip(self._setup.optimizer.param_groups, self._setup.base_rates, strict=True):
            group["lr"] = base * factor

    def _add_up(self) -> tuple[Sequence[Seen], Exception | None]:
        """Add up the gradients of the step's batches; return what failed where other processes must hear of it."""
        try:
            return self._batches.add_up(step=self.step + 1, taken=self.taken), None
        except Exception as error:
            if self._setup.processes.count == 1 or self.divided:  # a divided model's batches are computed together
                raise
            return (), error

    def _reduce(self, seen: Sequence[Seen], failure: Exception | None) -> tuple[float, float]:
        """Average gradients, loss and the wish to stop over the processes; return the loss and the gradient's norm.

        A process on which a batch failed takes part all the same, so that all end instead of waiting for it.
        """
        loss = sum(one.loss for one in seen) / max(1, len(seen))
        told = [loss, float(self._cancel.cancelled), float(failure is not None)]
        processes = self._setup.processes
        if self.divided:  # then its gradients are averaged and divided already
            loss, stop, failed = processes.mean(told)
        else:
            loss, stop, failed = processes.average_gradients(self._parameters, told)
        if failed > 0:
            raise failure or RunError("another process failed", step=self.step + 1, hint="its own error says why")
        self._agreed = stop > 0
        if self._setup.fused is not None:
            return loss, self._setup.fused.take_norm()
        return loss, limit_gradients(self._parameters, self._trainer.max_grad_norm)

    def _update(self) -> WeightNorms | None:
        setup = self._setup
        self.whole = False
        if not self._trainer.optimizer.fused_backward:
            with setup.random.update(self.step):
                setup.optimizer.step()
        norms = setup.trained.limit_norms()
        if setup.averages is not None:
            setup.averages.update(self.step + 1)
        return norms

    def _count(self, loss: float, rates: Mapping[str, float], *, finite: bool) -> None:
        self.step += 1
        self.taken += self._trainer.accumulate * self._setup.processes.count
        self._losses.append(loss)
        self._rates.append(next(iter(rates.values())))
        self.whole = True
        if self.step > self._furthest and finite:
            self._trouble, self._furthest = 0, self.step

    def _tolerate(self, seen: Sequence[Seen]) -> None:
        """Let a step go without an update if the trainer says so; raise if it does not, or too often."""
        self._trouble += 1
        if self._trainer.on_nonfinite == "raise" or self._trouble > _PATIENCE:
            raise not_finite(self.step + 1, seen)

    def _roll_back(self, seen: Sequence[Seen]) -> RolledBack:
        """Return to the last state kept, from which the run goes on with other noise."""
        self._trouble += 1
        self._setup.optimizer.zero_grad(set_to_none=True)
        if self._safe is None or self._trouble > _PATIENCE:
            raise not_finite(self.step + 1, seen)
        failed, attempt = self.step + 1, self._setup.random.attempt + 1
        self._restore(self._safe)
        self._setup.random.attempt = attempt
        self.whole = True
        self._batches.go_to(self.taken)
        return RolledBack(step=failed, to=self.step)

    def _ended(
        self,
        seen: Sequence[Seen],
        epoch: int,
        norm: float,
        rates: Mapping[str, float],
        norms: WeightNorms | None,
        *,
        skipped: bool,
    ) -> StepEnded:
        return StepEnded(
            step=self.step,
            total=self._setup.material.total,
            epoch=epoch,
            loss=self._losses[-1],
            lr=self._rates[-1],
            grad_norm=norm,
            sigma=tuple(level for one in seen for level in one.sigma),
            items=tuple(item for one in seen for item in one.batch.items),
            bucket=seen[-1].batch.bucket,
            rates=rates,
            norms=norms,
            skipped=skipped,
        )
