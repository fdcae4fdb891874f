"""A run: the training loop as a generator of events."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from musubi.architecture import Architecture
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError, Issue
from musubi.core.events import Callback, Event, Finished, Reason, Sampled, Saved, Started, Warned
from musubi.networks.file import LoRAFile
from musubi.training import metadata, state
from musubi.training.result import TrainResult
from musubi.training.setup import Setup
from musubi.training.state import RunState
from musubi.training.stepper import Stepper
from musubi.training.trainer import Trainer

logger = logging.getLogger(__name__)


class Run:
    """A training run, started by iterating over it.

    Iterate for events, inside ``with`` so that everything is released however the block ends. ``cancel`` may be called
    from any thread: the step under way is finished, all is saved, and the last event is
    ``Finished(reason="cancelled")``. If a step or the block fails, the state after the last whole step is saved
    before the error goes on.
    """

    def __init__(
        self, trainer: Trainer[Architecture], *, resume: Path | str | None = None, on: Iterable[Callback] = ()
    ) -> None:
        self._trainer = trainer
        self._resume = resume
        self._callbacks = tuple(on)
        self._cancel = CancelToken()
        self._events = self._train()
        self._state: Path | None = None
        self._result: TrainResult | None = None
        self._samples: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def cancel(self) -> None:
        """Ask for a clean stop after the step under way; safe from any thread."""
        self._cancel.cancel()

    @property
    def state(self) -> Path:
        """The newest state folder of this run, to resume from."""
        if self._state is None:
            raise ConfigError("no state yet", [Issue("run", "nothing was saved so far", "iterate over the run first")])
        return self._state

    @property
    def result(self) -> TrainResult:
        """What the run left behind, once it has finished or was cancelled."""
        if self._result is None:
            raise ConfigError("no result yet", [Issue("run", "has not finished", "iterate over the run to its end")])
        return self._result

    def _train(self) -> Generator[Event, None, None]:
        began = time.monotonic()
        settings = metadata.settings(self._trainer)
        resumed = self._load_state()
        with ExitStack() as stack:
            setup = Setup.open(self._trainer, stack)
            if resumed is not None:
                resumed.check(settings, setup.loader.content)
            stepper = Stepper(setup, self._trainer, settings=settings, resumed=resumed)
            stack.callback(self._rescue, stepper)
            stack.callback(stepper.close)
            yield self._tell(self._started(setup, stepper))
            if stepper.step == 0:
                yield from self._sample(setup, stepper)
            yield from self._steps(stepper, setup)
            yield from self._finish(stepper, setup, began)

    def _steps(self, stepper: Stepper, setup: Setup) -> Generator[Event, None, None]:
        trainer = self._trainer
        while stepper.step < trainer.steps and not self._cancel.cancelled:
            yield self._tell(stepper.advance())
            last = stepper.step == trainer.steps
            if _due(trainer.save_every, stepper.step) and not last:
                yield self._tell(self._save_lora(stepper, setup, f"-step{stepper.step:08d}"))
            if _due(trainer.state_every, stepper.step) and not last:
                yield self._tell(self._save_state(stepper, f"-step{stepper.step:08d}"))
            if _due(trainer.sample_every, stepper.step) or (last and trainer.samples):
                yield from self._sample(setup, stepper)

    def _finish(self, stepper: Stepper, setup: Setup, began: float) -> Generator[Event, None, None]:
        done = stepper.step >= self._trainer.steps
        reason: Reason = "completed" if done else "cancelled"
        saved = self._save_lora(stepper, setup, "")
        yield self._tell(saved)
        yield self._tell(self._save_state(stepper, "" if done else f"-step{stepper.step:08d}"))
        self._result = TrainResult(
            lora=LoRAFile.load(saved.path),
            path=saved.path,
            state=self.state,
            steps=stepper.step,
            reason=reason,
            losses=stepper.losses,
            rates=stepper.rates,
            seconds=time.monotonic() - began,
            samples=tuple(self._samples),
        )
        if self._result.zero_effect:
            hint = "was the learning rate 0?" if not any(stepper.rates) else "train longer or with a higher rate"
            yield self._tell(Warned(message=f"the LoRA has no effect: all its weights are still zero ({hint})"))
        yield self._tell(Finished(step=stepper.step, reason=reason))

    def _load_state(self) -> RunState | None:
        if self._resume is None:
            return None
        trainer = self._trainer
        folder = state.latest(trainer.output, trainer.name) if self._resume == "latest" else Path(self._resume)
        resumed = RunState.load(folder)
        self._state = folder
        return resumed

    def _started(self, setup: Setup, stepper: Stepper) -> Started:
        trainable = sum(p.numel() for p in setup.adapters.parameters())
        return Started(step=stepper.step, total=self._trainer.steps, items=setup.loader.items, trainable=trainable)

    def _save_lora(self, stepper: Stepper, setup: Setup, suffix: str) -> Saved:
        trainer = self._trainer
        facts = metadata.metadata(trainer, setup.loader, stepper)
        path = trainer.output / f"{trainer.name}{suffix}.safetensors"
        if setup.accelerator.is_main_process:
            setup.adapters.to_file(facts).save(path)
        setup.accelerator.wait_for_everyone()
        return Saved(step=stepper.step, path=path, what="lora")

    def _save_state(self, stepper: Stepper, suffix: str) -> Saved:
        trainer = self._trainer
        self._state = stepper.save(trainer.output / f"{trainer.name}{suffix}-state")
        return Saved(step=stepper.step, path=self._state, what="state")

    def _sample(self, setup: Setup, stepper: Stepper) -> Generator[Event, None, None]:
        if not setup.sampling.jobs:
            return
        folder, stem = self._trainer.output / "samples", f"{self._trainer.name}-step{stepper.step:08d}"
        images = setup.draw_samples()
        paths = tuple(image.save(folder / f"{stem}-{i:02d}{image.suffix}") for i, image in enumerate(images))
        self._samples += paths
        yield self._tell(Sampled(step=stepper.step, images=images, paths=paths))

    def _rescue(self, stepper: Stepper) -> None:
        """Keep what would be lost when the run ends early; never hide the error that ended it."""
        if self._result is not None or not stepper.whole or stepper.step == stepper.saved_step:
            return
        try:
            self._save_state(stepper, f"-step{stepper.step:08d}")
        except Exception:
            logger.exception("could not save the state of the interrupted run at step %d", stepper.step)

    def _tell(self, event: Event) -> Event:
        for callback in self._callbacks:
            callback(event)
        return event


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0
