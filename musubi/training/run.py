"""A run: the training loop as a generator of events."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from musubi.architecture import Architecture
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError, Issue, MusubiError, shown
from musubi.core.events import Callback, Event, Finished, Progress, Reason, Sampled, Saved, Started, Warned
from musubi.inference.engine import SamplingCancelledError
from musubi.networks.file import LoRAFile
from musubi.training import metadata, state
from musubi.training.result import TrainResult
from musubi.training.setup import Setup
from musubi.training.state import RunState
from musubi.training.stepper import Stepper
from musubi.training.trainer import Trainer

logger = logging.getLogger(__name__)


class Run:
    """A training run, started by iterating over it, once.

    Iterate for events, inside ``with`` so that everything is released however the block ends. ``cancel`` may be called
    from any thread: the step under way is finished, all is saved, and the last event is
    ``Finished(reason="cancelled")``. If a step or the block fails, the state after the last whole step is saved
    before the error goes on, and the callbacks hear ``Finished(reason="failed")``.

    Runs may take turns in a process. At the same time, in threads, they should not use dropout: it draws from torch's
    one generator.
    """

    def __init__(
        self,
        trainer: Trainer[Architecture],
        *,
        resume: Path | str | None = None,
        on: Iterable[Callback] = (),
        cancel: CancelToken | None = None,
    ) -> None:
        self._trainer = trainer
        self._resume = resume
        self._callbacks = tuple(on)
        self._cancel = cancel or CancelToken()
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
        if inspect.getgeneratorstate(self._events) == inspect.GEN_CLOSED:
            raise ConfigError("run", [Issue("", "is over", "start another with trainer.start()")])
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
            hint = "iterate over it to its end"
            raise ConfigError("no result", [Issue("run", "has not finished, or was left before its end", hint)])
        return self._result

    def _train(self) -> Generator[Event, None, None]:
        began = time.monotonic()
        with ExitStack() as stack:
            setup, stepper = self._open(stack)
            for message in self._cautions(stepper):
                yield self._tell(Warned(message=message))
            yield self._tell(self._started(setup, stepper))
            if stepper.step == 0:
                yield from self._sample(setup, stepper)
            yield from self._steps(stepper, setup)
            yield from self._finish(stepper, setup, began)

    def _open(self, stack: ExitStack) -> tuple[Setup, Stepper]:
        """Check what can be checked without weights, then load; what must be undone is pushed onto ``stack``."""
        trainer = self._trainer
        settings = metadata.settings(trainer)
        state.tidy(trainer.output, trainer.name)
        resumed = self._load_state()
        if resumed is not None:
            resumed.check(settings, trainer.cache.manifest().content, steps=trainer.steps)
        setup = Setup.open(trainer, stack)
        stepper = Stepper(setup, trainer, settings=settings, resumed=resumed)
        stack.push(partial(self._ended, stepper))
        stack.callback(stepper.close)
        return setup, stepper

    def _cautions(self, stepper: Stepper) -> Iterator[str]:
        trainer = self._trainer
        final = trainer.output / f"{trainer.name}.safetensors"
        if self._resume is None and final.exists():
            yield f"{shown(final)} exists already; it is replaced when this run is complete"
        if stepper.step == trainer.steps:
            yield f"the state is at step {stepper.step} of {trainer.steps}: nothing is left to train"

    def _steps(self, stepper: Stepper, setup: Setup) -> Generator[Event, None, None]:
        trainer = self._trainer
        while stepper.step < trainer.steps and not self._cancel.cancelled:
            yield self._tell(stepper.advance())
            last = stepper.step == trainer.steps
            if _due(trainer.save_every, stepper.step) and not last:
                yield self._tell(self._save_lora(stepper, setup, complete=False))
            if _due(trainer.state_every, stepper.step) and not last:
                yield self._tell(self._save_state(stepper, complete=False))
            if _due(trainer.sample_every, stepper.step) or last:
                yield from self._sample(setup, stepper)

    def _finish(self, stepper: Stepper, setup: Setup, began: float) -> Generator[Event, None, None]:
        complete = stepper.step == self._trainer.steps
        reason: Reason = "completed" if complete else "cancelled"
        saved = self._save_lora(stepper, setup, complete=complete)
        yield self._tell(saved)
        yield self._tell(self._save_state(stepper, complete=complete))
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
        trainer = self._trainer
        if self._resume is None:
            return None
        searched = self._resume in {"latest", "auto"}
        folder = state.latest(trainer.output, trainer.name) if searched else Path(self._resume)
        if folder is None and self._resume == "auto":
            return None
        if folder is None:
            hint = 'start without resume, or with resume="auto", which begins anew if there is none'
            issue = Issue(shown(trainer.output), f"holds no state of a run called {trainer.name!r}", hint)
            raise ConfigError("cannot resume", [issue])
        resumed = RunState.load(folder)
        self._state = folder
        return resumed

    def _started(self, setup: Setup, stepper: Stepper) -> Started:
        trainable = sum(p.numel() for p in setup.adapters.parameters())
        return Started(step=stepper.step, total=self._trainer.steps, items=setup.loader.items, trainable=trainable)

    def _save_lora(self, stepper: Stepper, setup: Setup, *, complete: bool) -> Saved:
        trainer = self._trainer
        path = trainer.output / f"{trainer.name}{_suffix(stepper, complete=complete)}.safetensors"
        if setup.processes.leads:
            setup.adapters.to_file(metadata.metadata(trainer, setup, stepper)).save(path)
        setup.processes.wait()
        return Saved(step=stepper.step, path=path, what="lora")

    def _save_state(self, stepper: Stepper, *, complete: bool) -> Saved:
        trainer = self._trainer
        folder = trainer.output / f"{trainer.name}{_suffix(stepper, complete=complete)}-state"
        self._state = stepper.save(folder)
        return Saved(step=stepper.step, path=folder, what="state")

    def _sample(self, setup: Setup, stepper: Stepper) -> Generator[Event, None, None]:
        if not setup.sampling.jobs or self._cancel.cancelled:
            return
        folder, stem = self._trainer.output / "samples", f"{self._trainer.name}-step{stepper.step:08d}"
        try:
            images = setup.draw_samples(cancel=self._cancel, on_step=self._tell_sampling)
        except SamplingCancelledError:
            return
        except MusubiError as error:
            yield self._tell(Warned(message=f"no samples at step {stepper.step}: {error}"))
            return
        paths = tuple(image.save(folder / f"{stem}-{i:02d}{image.suffix}") for i, image in enumerate(images))
        self._samples += paths
        yield self._tell(Sampled(step=stepper.step, images=images, paths=paths))

    def _tell_sampling(self, done: int, total: int) -> None:
        self._tell(Progress(task="sampling", done=done, total=total))

    def _ended(self, stepper: Stepper, kind: type[BaseException] | None, *_: object) -> None:
        """Keep what would be lost when the run ends early, and tell so; never hide the error that ended it."""
        if self._result is not None:
            return
        reason: Reason = "cancelled" if kind is GeneratorExit else "failed"
        try:
            if stepper.whole and stepper.step != stepper.saved_step:
                saved = self._save_state(stepper, complete=False)
                logger.warning("the run ended at step %d; its state is in %s", stepper.step, saved.path)
                self._tell(saved)
            self._tell(Finished(step=stepper.step, reason=reason))
        except Exception:
            logger.exception("could not put the interrupted run away at step %d", stepper.step)

    def _tell(self, event: Event) -> Event:
        for callback in self._callbacks:
            callback(event)
        return event


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


def _suffix(stepper: Stepper, *, complete: bool) -> str:
    """Return what stands between a run's name and its files' endings: the bare name is that of a complete run."""
    return "" if complete else f"-step{stepper.step:08d}"
