"""Running averages of what is trained: the weights that are saved, validated and sampled with."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from musubi.core.fields import count, field
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from musubi.networks.trained import Trained


def _decay(value: object) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    return None if good else f"must be a number from 0 to below 1, got {value!r}"


@attrs.frozen(kw_only=True)
class EMA(Spec):
    """Keep an exponential moving average of the trained weights, in float32.

    With every step the average keeps ``decay`` of itself and takes the rest from the weights: 0.999 looks back about
    1000 steps. ``warmup`` keeps less of it at first, so that a short run is not weighed down by its start. ``every``
    moves the average only every so many steps, by as much as they would have together. ``on_host`` keeps it in host
    memory, which costs a copy at every move.

    Example:
        >>> from musubi import EMA
        >>> [round(EMA(decay=0.999).kept(step), 3) for step in (1, 10, 100, 100_000)]
        [0.182, 0.55, 0.918, 0.999]
    """

    decay: float = field(default=0.999, check=_decay)
    warmup: bool = True
    every: int = field(default=1, check=count())
    on_host: bool = False

    def kept(self, step: int) -> float:
        """Return how much of itself the average keeps when it moves after ``step`` steps.

        Source of the warm-up: ``min(decay, (1 + n) / (10 + n))``, TensorFlow's ``ExponentialMovingAverage``.
        """
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        return decay**self.every


class Averages:
    """The averages of one run, which begin with the weights as they are when this is made.

    They lie where the weights do, or on the host, and are moved by ``update`` alone.
    """

    def __init__(self, spec: EMA, trained: Trained) -> None:
        import torch

        self._spec = spec
        names = {id(parameter): name for name, parameter in trained.named_parameters()}
        self._trained = {names[id(p)]: p for group in trained.groups() for p in group.parameters}
        self._averages = {
            name: p.detach().to("cpu" if spec.on_host else p.device, torch.float32, copy=True)
            for name, p in self._trained.items()
        }

    def update(self, step: int) -> None:
        """Move the averages after the step ``step``, counted from 1, if it is one of every few that do."""
        if step % self._spec.every:
            return
        taken = 1 - self._spec.kept(step)
        for name, average in self._averages.items():
            average.lerp_(self._trained[name].detach().to(average), taken)

    @contextmanager
    def swapped_in(self) -> Generator[None]:
        """Let the model compute with the averages inside the block; the weights are as before, bit for bit, after it.

        The weights wait where the averages lie. They must not be trained meanwhile.
        """
        waiting: dict[str, Tensor] = {}
        try:
            for name, average in self._averages.items():
                parameter = self._trained[name].detach()
                waiting[name] = parameter.to(average.device, copy=True)
                parameter.copy_(average)
            yield
        finally:
            for name, weight in waiting.items():
                self._trained[name].detach().copy_(weight)

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the averages on the host, by the names of the trained parameters."""
        return {name: average.to("cpu", copy=True) for name, average in self._averages.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from averages that ``state_dict`` returned.

        Raises:
            ValueError: They belong to other parameters.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        wanted = {name: tuple(average.shape) for name, average in self._averages.items()}
        if shapes != wanted:
            wrong = sorted(name for name in shapes | wanted if shapes.get(name) != wanted.get(name))
            raise ValueError(f"averages of other parameters: {', '.join(wrong[:3])} ({len(wrong)} differ)")
        for name, tensor in state.items():
            self._averages[name].copy_(tensor)
