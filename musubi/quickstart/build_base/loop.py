"""Train any stage: AdamW, warm-up and decay, averaged weights, checkpoints that resume where they stopped."""

from __future__ import annotations

import copy
import logging
import time
from pathlib import Path
from typing import Protocol

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from musubi.quickstart.build_base.group import Group
from musubi.quickstart.build_base.options import Options

logger = logging.getLogger(__name__)


class Stage(Protocol):
    """Compute the loss of one step; the loop does the rest."""

    name: str
    module: nn.Module
    parameters: list[nn.Parameter]

    def loss(self, chance: Chance) -> Tensor:
        """Draw a batch and return its loss."""
        ...


@attrs.frozen
class Chance:
    """Carry the randomness of one step of one process: the same after a resume as without it."""

    numpy: np.random.Generator
    torch: torch.Generator
    shared: np.random.Generator

    @classmethod
    def at(cls, options: Options, group: Group, step: int) -> Chance:
        """Seed from the run's seed, the step and the process; `shared` is equal on all processes."""
        own = np.random.default_rng([options.seed, step, group.rank])
        generator = torch.Generator().manual_seed(int(own.integers(2**62)))
        return cls(own, generator, np.random.default_rng([options.seed, step]))


@attrs.frozen(kw_only=True)
class Schedule:
    """Warm up, hold, then fall linearly to a hundredth from `hold` of the way on."""

    steps: int
    rate: float
    warmup: int = 100
    hold: float = 0.5
    average: float = 0.999
    save_every: int = 200

    def at(self, step: int) -> float:
        """Return the learning rate of a step."""
        remaining = max(0.0, (self.steps - step) / (self.steps * (1 - self.hold)))
        return self.rate * min(1.0, (step + 1) / self.warmup, max(0.01, remaining))

    def replaced(self, options: Options) -> Schedule:
        """Return this schedule with the command line's steps and rate where given."""
        return attrs.evolve(self, steps=options.steps or self.steps, rate=options.rate or self.rate)


def train(stage: Stage, schedule: Schedule, options: Options, group: Group) -> None:
    """Train until the schedule's last step, from the checkpoint if there is one; averaged weights are in it too."""
    run = _Run(stage, schedule.replaced(options), options, group)
    run.resume()
    started = time.monotonic()
    while run.step < run.schedule.steps:
        run.advance()
        if run.step % 20 == 0 and group.leads:
            pace = (time.monotonic() - started) / (run.step - run.first)
            logger.info("%s step %d loss %.5f, %.3f s a step", stage.name, run.step, run.mean_loss, pace)
        if run.step % run.schedule.save_every == 0 or run.step == run.schedule.steps:
            run.save()
    group.wait()


class _Run:
    """Hold what changes during training."""

    def __init__(self, stage: Stage, schedule: Schedule, options: Options, group: Group) -> None:
        self.stage, self.schedule, self.options, self.group = stage, schedule, options, group
        self.optimizer = torch.optim.AdamW(stage.parameters, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.01)
        self.averaged = copy.deepcopy(stage.module).requires_grad_(False)
        self.step = self.first = 0
        self.mean_loss = 0.0
        self.path = options.out / f"{stage.name}.pt"

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if not self.path.exists():
            return
        state = torch.load(self.path, weights_only=True, map_location=self.options.device)
        self.stage.module.load_state_dict(state["module"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = self.first = state["step"]
        logger.info("%s resumes at step %d", self.stage.name, self.step)

    def advance(self) -> None:
        """Take one step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.at(self.step)
        self.optimizer.zero_grad()
        loss = self.stage.loss(Chance.at(self.options, self.group, self.step))
        loss.backward()
        self.group.average_gradients(self.stage.parameters)
        nn.utils.clip_grad_norm_(self.stage.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        self._average()
        self.mean_loss += (loss.item() - self.mean_loss) / min(self.step - self.first + 1, 100)

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        if not self.group.leads:
            return
        state = {
            "module": self.stage.module.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        save_atomically(state, self.path)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.schedule.average, self.step / (self.step + 10))
        pairs = zip(self.averaged.parameters(), self.stage.module.parameters(), strict=True)
        for mean, parameter in pairs:
            mean.lerp_(parameter, 1 - decay)


def save_atomically(state: object, path: Path) -> None:
    """Write a torch file beside `path`, then move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def averaged_weights(path: Path) -> dict[str, Tensor]:
    """Read the averaged weights of a checkpoint."""
    weights: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")["averaged"]
    return weights
