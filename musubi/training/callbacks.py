"""Listeners for a run's events: a progress bar, and the trackers that accelerate knows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from musubi.core.errors import ConfigError, Issue
from musubi.core.events import Event, Finished, Progress, Started, StepEnded, Warned
from musubi.core.fields import did_you_mean


class ProgressBar:
    """One bar over the steps, with the smoothed loss and the learning rate."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._mean = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case Started(step=step, total=total):
                self._bar = tqdm(total=total, initial=step, desc="training", unit="step", smoothing=0.05)
            case StepEnded(loss=loss, lr=lr) if self._bar is not None:
                self._mean = loss if self._mean == 0.0 else 0.95 * self._mean + 0.05 * loss
                self._bar.set_postfix(loss=f"{self._mean:.4f}", lr=f"{lr:.2e}", refresh=False)
                self._bar.update()
            case Warned(message=message):
                tqdm.write(message, file=sys.stderr)
            case Progress(task="sampling") if self._bar is not None:
                self._bar.set_description("sampling" if event.done < event.total else "training")
            case Finished():
                self.close()
            case _:
                pass

    def close(self) -> None:
        """Leave the bar as it stands, also when the run ended by an error."""
        if self._bar is not None:
            self._bar.close()


class TrackerCallback:
    """Log loss, learning rate and gradient norm to a tracker by its name: "tensorboard", "wandb", "trackio", ...

    Example:
        >>> from musubi import TrackerCallback
        >>> tracker = TrackerCallback("tensorboard", folder="logs")
    """

    def __init__(self, tracker: str, *, folder: Path | str = "logs", run: str = "musubi") -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

        known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
        if tracker not in known:
            near = did_you_mean(tracker, known)
            raise ConfigError("TrackerCallback", [Issue("tracker", f"no tracker is called {tracker!r}{near}")])
        if tracker not in [str(name) for name in get_available_trackers()]:
            raise ConfigError(
                "TrackerCallback", [Issue("tracker", f"{tracker} is not installed", f"pip install {tracker}")]
            )
        self._class: Any = LOGGER_TYPE_TO_CLASS[tracker]
        self._folder, self._run = Path(folder), run
        self._tracker: Any = None

    def __call__(self, event: Event) -> None:
        match event:
            case Started():
                self._tracker = self._open()
            case StepEnded(step=step):
                values = {"loss": event.loss, "lr": event.lr, "grad_norm": event.grad_norm, "epoch": event.epoch}
                self._tracker.log(values, step=step)
            case Finished():
                self._tracker.finish()
            case _:
                pass

    def _open(self) -> Any:
        place: dict[str, Any] = {}
        if self._class.requires_logging_directory:
            self._folder.mkdir(parents=True, exist_ok=True)
            place = {"logging_dir": str(self._folder)}
        tracker = self._class(self._run, **place)
        tracker.start()
        return tracker
