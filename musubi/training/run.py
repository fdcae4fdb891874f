"""A run: the training loop as a generator of events."""

from __future__ import annotations

import inspect
import itertools
import logging
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs
import torch

from musubi.architecture import Architecture, Expert
from musubi.core.control import CancelToken
from musubi.core.errors import ConfigError, Issue, MusubiError, shown
from musubi.core.events import (
    Callback,
    Event,
    Finished,
    Progress,
    Reason,
    Removed,
    RolledBack,
    Sampled,
    Saved,
    Started,
    Warned,
)
from musubi.inference.engine import SamplingCancelledError
from musubi.inference.media import Image, Video
from musubi.training import state
from musubi.training.done import Done
from musubi.training.experts import file_names
from musubi.training.files import Written
from musubi.training.material import Material
from musubi.training.metadata import metadata
from musubi.training.processes import Processes
from musubi.training.result import TrainResult
from musubi.training.retention import clear
from musubi.training.sampling_due import sampling_due
from musubi.training.settings import settings
from musubi.training.settling import settled
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

    Under ``accelerate launch`` or ``torchrun`` every process makes the same run. Together they take the steps that one
    process would take with ``accumulate`` times as many batches; the first writes the files.
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
        self._block_failed = False
        self._samples: list[Path] = []
        self._began = datetime.now(UTC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._block_failed = kind is not None
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
        began, self._began = time.monotonic(), datetime.now(UTC)
        with ExitStack() as stack:
            setup, stepper = self._open(stack)
            for message in self._cautions(setup, stepper):
                yield self._tell(Warned(message=message))
            yield self._tell(self._started(setup, stepper))
            if stepper.step == 0:
                yield from self._sample(setup, stepper)
            yield from self._steps(stepper, setup)
            yield from self._finish(stepper, setup, began)

    def _open(self, stack: ExitStack) -> tuple[Setup, Stepper]:
        """Check what can be checked without weights, then load; what must be undone is pushed onto ``stack``."""
        trainer = self._trainer
        processes = Processes(trainer.device)
        if processes.leads:
            state.tidy(trainer.output, trainer.name)
        processes.wait()
        resumed = processes.every(self._load_state)
        self._check_agreement(processes, resumed)
        trainer = self._trainer = settled(trainer, processes, resumed)
        material = processes.every(partial(Material.open, trainer, processes))
        together = {**settings(trainer), "accumulate": trainer.accumulate * processes.count}
        if resumed is not None:
            resumed.check(together, material.content, steps=material.total)
        setup = Setup.open(trainer, processes, material, stack)
        stepper = Stepper(setup, trainer, settings=together, resumed=resumed, cancel=self._cancel)
        stack.push(partial(self._ended, stepper))
        stack.callback(stepper.close)
        return setup, stepper

    def _check_agreement(self, processes: Processes, resumed: RunState | None) -> None:
        """Make sure that all processes go on from the same state: not all may see the same folder."""
        found = processes.share(lambda: None if resumed is None else (resumed.step, resumed.taken, resumed.attempt))
        if len(set(found)) > 1:
            told = ", ".join("none" if one is None else f"one at step {one[0]}" for one in found)
            hint = "output, and the state to resume from, must lie on a disk that all machines share"
            raise ConfigError("cannot resume", [Issue("resume", f"the processes found different states: {told}", hint)])

    def _cautions(self, setup: Setup, stepper: Stepper) -> Iterator[str]:
        for final in self._paths(Written()).values():
            if self._resume is None and final.exists():
                yield f"{shown(final)} exists already; it is replaced when this run is complete"
        if stepper.step == setup.material.total:
            yield f"the state is at step {stepper.step} of {setup.material.total}: nothing is left to train"

    def _steps(self, stepper: Stepper, setup: Setup) -> Generator[Event, None, None]:
        while stepper.step < setup.material.total and not stepper.stopped:
            before = stepper.position.epoch
            event = stepper.advance()
            yield self._tell(event)
            if isinstance(event, RolledBack):
                continue
            done = Done(step=stepper.step, epochs=range(before + 1, stepper.position.epoch + 1))
            last = stepper.step == setup.material.total
            yield from self._validate(setup, stepper, done, last=last)
            if not last:
                yield from self._checkpoints(setup, stepper, done)
            trainer = self._trainer
            if last or sampling_due(
                done.step, done.epochs, every=trainer.sample_every, every_epochs=trainer.sample_every_epochs
            ):
                yield from self._sample(setup, stepper)

    def _checkpoints(self, setup: Setup, stepper: Stepper, done: Done) -> Generator[Event, None, None]:
        """Write what is due after a step that is not the last: by epochs, and by steps."""
        trainer = self._trainer
        for written in done.written(trainer.save_every, trainer.save_every_epochs):
            yield from self._save_lora(stepper, setup, written)
        for written in done.written(trainer.state_every, trainer.state_every_epochs):
            yield from self._save_state(stepper, setup, attrs.evolve(written, state=True))

    def _validate(self, setup: Setup, stepper: Stepper, done: Done, *, last: bool) -> Generator[Event, None, None]:
        validation = self._trainer.validation
        if validation is None or not (last or any(done.written(validation.every, validation.every_epochs))):
            return
        validated = setup.validate(stepper.step, stepper.validations, cancel=self._cancel)
        if validated is None:
            return
        stepper.validations.append(validated)
        yield self._tell(validated)
        if validated.best:
            yield from self._save_lora(stepper, setup, Written(when="best"))

    def _finish(self, stepper: Stepper, setup: Setup, began: float) -> Generator[Event, None, None]:
        complete = stepper.step == setup.material.total
        reason: Reason = "completed" if complete else "cancelled"
        written = Written() if complete else Written(when="step", number=stepper.step)
        yield from self._save_lora(stepper, setup, written)
        yield from self._save_state(stepper, setup, attrs.evolve(written, state=True))
        self._result = self._summary(
            stepper, setup, paths=self._paths(written), reason=reason, seconds=time.monotonic() - began
        )
        if self._result.zero_effect:
            hint = "was the learning rate 0?" if not any(stepper.rates) else "train longer or with a higher rate"
            what = "LoRA has no effect: all its" if setup.what == "lora" else "training had no effect: all"
            still = "zero" if setup.what == "lora" else "the base model's"
            yield self._tell(Warned(message=f"the {what} weights are still {still} ({hint})"))
        yield self._tell(Finished(step=stepper.step, reason=reason))

    def _summary(
        self, stepper: Stepper, setup: Setup, *, paths: Mapping[Expert, Path], reason: Reason, seconds: float
    ) -> TrainResult:
        path, best = (next(iter(found.values())) for found in (paths, self._paths(Written(when="best"))))
        return TrainResult(
            lora=setup.saved(path),
            experts={expert.name: own for expert, own in paths.items()} if len(paths) > 1 else {},
            zero_effect=setup.trained.zero_effect,
            path=path,
            state=self.state,
            steps=stepper.step,
            reason=reason,
            losses=stepper.losses,
            rates=stepper.rates,
            validations=tuple(stepper.validations),
            best=best if stepper.validations else None,
            seconds=seconds,
            samples=tuple(self._samples),
        )

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
        trainable = sum(p.numel() for group in setup.trained.groups() for p in group.parameters)
        return Started(
            step=stepper.step, total=setup.material.total, items=setup.material.loader.items, trainable=trainable
        )

    def _save_lora(self, stepper: Stepper, setup: Setup, written: Written) -> Generator[Event, None, None]:
        paths = self._paths(written)
        setup.processes.every(partial(self._write_lora, setup, stepper, paths))
        for expert, path in paths.items():
            yield self._tell(Saved(step=stepper.step, path=path, what="best" if written.when == "best" else setup.what))
            yield from self._clear(setup, path, file_names(self._trainer)[expert], self._trainer.keep_last)

    def _paths(self, written: Written) -> dict[Expert, Path]:
        """Return where what is trained goes, by the expert that it is for."""
        trainer = self._trainer
        return {expert: written.path(trainer.output, name) for expert, name in file_names(trainer).items()}

    def _write_lora(self, setup: Setup, stepper: Stepper, paths: Mapping[Expert, Path]) -> None:
        if setup.processes.leads or stepper.divided:
            for expert, path in paths.items():
                told = metadata(self._trainer, setup, stepper, expert=expert, began=self._began)
                setup.save(path, told, expert=expert)

    def _save_state(self, stepper: Stepper, setup: Setup, written: Written) -> Generator[Event, None, None]:
        trainer = self._trainer
        self._state = stepper.save(written.path(trainer.output, trainer.name))
        yield self._tell(Saved(step=stepper.step, path=self._state, what="state"))
        keep = trainer.keep_last_states or trainer.keep_last
        yield from self._clear(setup, self._state, trainer.name, keep)

    def _clear(self, setup: Setup, written: Path, name: str, keep: int | None) -> Generator[Event, None, None]:
        if keep is not None and setup.processes.leads:
            for path in clear(written, name, keep=keep):
                yield self._tell(Removed(path=path))

    def _sample(self, setup: Setup, stepper: Stepper) -> Generator[Event, None, None]:
        if not self._trainer.samples or stepper.stopped:
            return
        stem = f"{self._trainer.name}-step{stepper.step:08d}"
        drawn: list[Image | Video] = []
        try:
            everyone = setup.processes.share(partial(self._draw, setup, stem, drawn))
        except SamplingCancelledError:
            return
        except MusubiError as error:
            yield self._tell(Warned(message=f"no samples at step {stepper.step}: {error}"))
            return
        except torch.OutOfMemoryError:
            hint = "ask for fewer frames or a smaller size, or draw them later with a Pipeline"
            yield self._tell(Warned(message=f"no samples at step {stepper.step}: out of device memory ({hint})"))
            return
        paths = tuple(sorted(path for own in everyone for path in own))
        self._samples += paths
        yield self._tell(Sampled(step=stepper.step, images=tuple(drawn), paths=paths))

    def _draw(self, setup: Setup, stem: str, drawn: list[Image | Video]) -> list[Path]:
        """Draw and write this process's part of the samples, which are dealt out one by one."""
        drawn += setup.draw_samples(cancel=self._cancel, on_step=self._tell_sampling)
        folder, places = self._trainer.output / "samples", itertools.count(setup.processes.rank, setup.processes.count)
        return [image.save(folder / f"{stem}-{i:02d}{image.suffix}") for i, image in zip(places, drawn, strict=False)]

    def _tell_sampling(self, done: int, total: int) -> None:
        self._tell(Progress(task="sampling", done=done, total=total))

    def _ended(self, stepper: Stepper, kind: type[BaseException] | None, *_: object) -> None:
        """Keep what would be lost when the run ends early, and tell so; never hide the error that ended it."""
        if self._result is not None:
            return
        left = kind is GeneratorExit and not self._block_failed
        reason: Reason = "cancelled" if left else "failed"
        try:
            if stepper.whole and stepper.step != stepper.saved_step and not stepper.divided:
                written = Written(when="step", number=stepper.step, state=True)
                folder = written.path(self._trainer.output, self._trainer.name)
                self._state = stepper.save(folder, together=False)
                logger.warning("the run ended at step %d; its state is in %s", stepper.step, folder)
                self._tell(Saved(step=stepper.step, path=folder, what="state"))
            self._tell(Finished(step=stepper.step, reason=reason))
        except Exception:
            logger.exception("could not put the interrupted run away at step %d", stepper.step)

    def _tell(self, event: Event) -> Event:
        for callback in self._callbacks:
            callback(event)
        return event
