"""The mean loss over the last epoch's worth of steps: steadier than a loss, and of the same items everywhere."""

from __future__ import annotations

import math


class EpochAverage:
    """The mean of the newest loss at each place of an epoch: over the first epoch so far, then over a whole epoch.

    An epoch has the same items every time, so that the mean goes up and down with the model and not with what happens
    to be drawn. It is musubi-tuner's ``loss/average``. After a resume it begins anew.

    Example:
        >>> from musubi.training.epoch_average import EpochAverage
        >>> average = EpochAverage()
        >>> [average.add(epoch, loss) for epoch, loss in [(0, 1.0), (0, 3.0), (1, 5.0)]]
        [1.0, 2.0, 4.0]
    """

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._epoch, self._place = -1, 0

    def add(self, epoch: int, loss: float) -> float:
        """Take the next loss of an epoch and return the mean; what is not finite is left out of it."""
        if epoch != self._epoch:
            self._epoch, self._place = epoch, 0
        self._losses[self._place : self._place + 1] = [loss]
        self._place += 1
        return self.mean

    @property
    def mean(self) -> float:
        """The mean now; not a number before the first loss."""
        finite = [loss for loss in self._losses if math.isfinite(loss)]
        return math.fsum(finite) / len(finite) if finite else math.nan
