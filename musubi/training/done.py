"""What a step of a run has completed, and what is to be written then."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from musubi.training.counting import due_epoch
from musubi.training.files import Written


@attrs.frozen
class Done:
    """What a step has completed: itself, and the epochs (counted from 1) whose last batch it has seen."""

    step: int
    epochs: range

    def written(self, every: int | None, every_epochs: int | None) -> Iterator[Written]:
        """Yield what is to be written: for the newest completed epoch, and for the step."""
        epoch = due_epoch(every_epochs, self.epochs)
        if epoch is not None:
            yield Written(when="epoch", number=epoch)
        if every is not None and self.step % every == 0:
            yield Written(when="step", number=self.step)
