"""A progress bar over a run's steps, in terminals and in notebooks."""

from __future__ import annotations

import math
import sys
from typing import Any

from tqdm.auto import tqdm

from musubi.core.errors import shown
from musubi.core.events import (
    Event,
    Finished,
    Progress,
    RolledBack,
    Sampled,
    Saved,
    Started,
    StepEnded,
    Validated,
    Warned,
)
from musubi.team import Team

_DECAY = 0.95
"""How much of the shown loss each step keeps: it follows about the last twenty."""

_TITLE = "training"


class ProgressBar:
    """One bar over the steps, with the smoothed loss, the learning rate, the epoch and the last validation loss.

    What is saved, drawn and warned of is told on lines above it. With several processes the first one shows it. A run
    that is resumed begins at its step, and the time that is left is told from the steps taken since.

    Example:
        >>> from musubi import ProgressBar
        >>> bar = ProgressBar()
        >>> result = trainer.run(on=[bar], progress=False)  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._begin()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self._start(event)
        elif self._bar is not None:
            self._show(event, self._bar)

    def close(self) -> None:
        """Leave the bar as it stands, also when the run ended by an error; safe to call again."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def _begin(self) -> None:
        self._sum, self._weight = 0.0, 0.0
        self._postfix: dict[str, str] = {}

    def _start(self, event: Started) -> None:
        self.close()
        self._begin()
        if Team().leads:
            self._bar = tqdm(total=event.total, initial=event.step, desc=_TITLE, unit="step", smoothing=0.05)

    def _show(self, event: Event, bar: tqdm[Any]) -> None:
        match event:
            case StepEnded():
                self._step(event, bar)
            case Validated(loss=loss, best=best):
                self._postfix["val"] = f"{loss:.4f}{' (best)' if best else ''}"
                bar.set_postfix(self._postfix)
            case Progress(task="sampling", done=done, total=total):
                bar.set_description(f"sampling {done}/{total}" if done < total else _TITLE)
            case Sampled(step=step, paths=paths) if paths:
                bar.set_description(_TITLE)
                self._tell(f"step {step}: drew {', '.join(shown(path) for path in paths)}")
            case Saved(step=step, path=path):
                self._tell(f"step {step}: saved {shown(path)}")
            case RolledBack(step=step, to=to):
                self._tell(f"step {step} was not finite: back to step {to}")
                bar.n = to
                bar.refresh()
            case Warned(message=message):
                self._tell(message)
            case Finished():
                self.close()
            case _:
                pass

    def _step(self, event: StepEnded, bar: tqdm[Any]) -> None:
        if math.isfinite(event.loss):
            self._sum = _DECAY * self._sum + (1 - _DECAY) * event.loss
            self._weight = _DECAY * self._weight + (1 - _DECAY)
        loss = self._sum / self._weight if self._weight else math.nan
        told = {"loss": f"{loss:.4f}", "lr": f"{event.lr:.2e}", "epoch": f"{event.epoch + 1}"}
        self._postfix = {**told, **{name: text for name, text in self._postfix.items() if name == "val"}}
        bar.set_postfix(self._postfix, refresh=False)
        bar.update(event.step - bar.n)

    def _tell(self, message: str) -> None:
        tqdm.write(message, file=sys.stderr)
