"""Logs of a run in the trackers that accelerate knows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from musubi.core.errors import ConfigError, Issue
from musubi.core.events import Event, Finished, Sampled, Started, StepEnded, Validated
from musubi.core.fields import as_path, did_you_mean
from musubi.team import Team
from musubi.training.epoch_average import EpochAverage
from musubi.training.tracker_sink import TrackerSink

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.training.trainer import Trainer


class TrackerCallback:
    """Log a run to one or several trackers: "tensorboard", "wandb", "trackio", or another that accelerate knows.

    Numbers have musubi-tuner's names: ``loss/current``, ``loss/average`` (over the last epoch's worth of steps),
    ``loss/epoch``, ``lr/unet`` and the other parameter groups, ``max_norm/keys_scaled`` and its neighbours; and beside
    these ``loss/validation``, ``loss/validation/0.00-0.25`` for each band of noise levels, ``grad_norm`` and ``epoch``.
    They are logged once for each optimiser step, at its number, so that a resumed run goes on where the curve ended.
    Samples are shown where the tracker can show them. With several processes the first one logs.

    A tracker that fails during the run is warned of; one that does not even start is an error.

    Args:
        trackers: Their names; each must be installed.
        folder: Where trackers that write files put them, tensorboard in a folder of the run's name.
        project: What trackers with projects file the run under.
        run: The run's name; by default the trainer's, or ``project``.
        trainer: Whose settings are told to the trackers, without paths and without secrets.
        options: More arguments for a tracker's own start, by its name, e.g. ``{"wandb": {"entity": "me"}}``.

    Raises:
        ConfigError: A tracker does not exist or is not installed.

    Example:
        >>> from musubi import TrackerCallback
        >>> tracker = TrackerCallback("tensorboard", folder="logs", run="clay")
    """

    def __init__(
        self,
        *trackers: str,
        folder: Path | str = "logs",
        project: str = "musubi",
        run: str | None = None,
        trainer: Trainer[Architecture] | None = None,
        options: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        _check(trackers, options or {})
        name = run or (trainer.name if trainer is not None else project)
        self._trainer = trainer
        self._sinks = [
            TrackerSink(
                tracker, project=project, run=name, folder=as_path(folder), options=(options or {}).get(tracker, {})
            )
            for tracker in trackers
        ]
        self._open: list[TrackerSink] = []
        self._begin()

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._start()
            case StepEnded(step=step):
                self._end_epoch(event)
                self._log(dict(self._numbers(event)), step)
            case Validated(step=step):
                self._log(dict(_validation(event)), step)
            case Sampled(step=step, images=images, paths=paths):
                for sink in self._open:
                    sink.samples(images, paths, step=step)
            case Finished():
                self._log_epoch()
                self.close()
            case _:
                pass

    def close(self) -> None:
        """Write what is left and end all trackers; safe to call again."""
        for sink in self._open:
            sink.close()
        self._open = []

    def _begin(self) -> None:
        self._average = EpochAverage()
        self._last: StepEnded | None = None

    def _start(self) -> None:
        self._begin()
        if not Team().leads:
            return
        from musubi.training.settings import told_settings

        settings = {} if self._trainer is None else told_settings(self._trainer)
        for sink in self._sinks:
            sink.open(settings)
            self._open.append(sink)

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for sink in self._open:
            sink.scalars(values, step=step)

    def _end_epoch(self, event: StepEnded) -> None:
        """Log the mean of an epoch at its last step, once the first step of the next is there."""
        if self._last is not None and event.epoch > self._last.epoch:
            self._log_epoch()
        self._last = event

    def _log_epoch(self) -> None:
        if self._last is not None and math.isfinite(self._average.mean):
            self._log({"loss/epoch": self._average.mean}, self._last.step)

    def _numbers(self, event: StepEnded) -> Iterator[tuple[str, float]]:
        average = self._average.add(event.epoch, event.loss)
        numbers = {"loss/current": event.loss, "loss/average": average, "grad_norm": event.grad_norm}
        yield from ((name, number) for name, number in numbers.items() if math.isfinite(number))
        yield from ((f"lr/{group}", rate) for group, rate in (event.rates or {"unet": event.lr}).items())
        if event.norms is not None:
            yield "max_norm/keys_scaled", event.norms.scaled
            yield "max_norm/average_key_norm", event.norms.mean
            yield "max_norm/max_key_norm", event.norms.largest
        yield "epoch", event.epoch
        if event.skipped:
            yield "skipped", 1.0


def _validation(event: Validated) -> Iterator[tuple[str, float]]:
    yield "loss/validation", event.loss
    for band in event.bands:
        yield f"loss/validation/{band.low:.2f}-{band.high:.2f}", band.loss


def _check(trackers: tuple[str, ...], options: Mapping[str, object]) -> None:
    issues = [
        Issue(f"options.{name}", f"is for no tracker that is used{did_you_mean(name, trackers)}")
        for name in options
        if name not in trackers
    ]
    if not trackers:
        issues.append(Issue("trackers", "there is none", 'give a name, e.g. "tensorboard"'))
    if issues:
        raise ConfigError("TrackerCallback", issues)
