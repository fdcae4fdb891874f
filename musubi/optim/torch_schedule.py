"""Any learning-rate scheduler of torch that the user's own Python names, as a schedule without state."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import field, positive
from musubi.optim.named import Value, as_arguments, dotted, found, name_of, plain
from musubi.optim.schedules import Schedule

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LRScheduler

_TOTAL = "total"


@attrs.frozen(kw_only=True)
class TorchSchedule(Schedule):
    """Use a learning-rate scheduler: ``name`` is the class, its name in ``torch.optim.lr_scheduler``, or a dotted name.

    It is called with an optimiser and ``arguments`` and played from the beginning, so it must follow from its steps
    alone: what watches a loss (``ReduceLROnPlateau``) cannot be used. An argument ``"total"`` stands for the steps of
    the run, whatever they become. Where arguments are absolute rates, as ``eta_min``, ``peak`` is the optimiser's rate
    that they belong to.

    As with ``CustomOptimizer``, a file with it is read only with ``plugins=[TorchSchedule]``.

    Example:
        >>> from musubi import TorchSchedule
        >>> TorchSchedule(name="StepLR", arguments={"step_size": 20, "gamma": 0.5}).factor(20, 100)
        0.5
    """

    kind: ClassVar[str] = "torch"

    name: str = field(converter=name_of, check=dotted)
    arguments: Mapping[str, Value] = field(factory=dict, converter=as_arguments, check=plain)
    peak: float = field(default=1.0, check=positive)

    def problems(self) -> Iterable[Issue]:
        """Yield an issue for a warm-up: the scheduler is used as it is."""
        if self.warmup:
            yield Issue("warmup", "cannot be added to a scheduler of torch", "a schedule of this library has one")

    def factor(self, step: int, total: int) -> float:
        """Return the factor that the scheduler has after ``step`` steps.

        Raises:
            ConfigError: There is no such class, or it does not take the arguments.
        """
        arguments = {name: total if value == _TOTAL else value for name, value in self.arguments.items()}
        kind = found(self.name, "torch.optim.lr_scheduler")
        return _player(kind, tuple(sorted(arguments.items())), self.peak).rate(step) / self.peak


class _Player:
    """Play a scheduler step by step, and remember."""

    def __init__(self, kind: type[LRScheduler], arguments: Mapping[str, Any], peak: float) -> None:
        import torch

        self._name, self._lock = kind.__name__, threading.Lock()
        self._optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak, momentum=0.9)
        with self._blamed():
            self._scheduler = kind(self._optimizer, **arguments)
        self._rates = [self._now()]

    def rate(self, step: int) -> float:
        """Return the rate after ``step`` steps."""
        with self._lock:
            while len(self._rates) <= step:
                with self._blamed():
                    self._scheduler.step()
                self._rates.append(self._now())
        return self._rates[step]

    def _now(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    @contextmanager
    def _blamed(self) -> Generator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the optimiser takes no steps: it has nothing to train
                yield
        except (TypeError, ValueError, AttributeError, AssertionError) as error:
            hint = "it must be built from an optimiser and these, and follow from its steps alone"
            issue = Issue("arguments", f"{self._name} does not work with them: {error}", hint)
            raise ConfigError("TorchSchedule", [issue]) from error


@lru_cache(maxsize=8)
def _player(kind: type[LRScheduler], arguments: tuple[tuple[str, Value], ...], peak: float) -> _Player:
    """Return the scheduler at play; by its class, since a notebook may give a name to another one."""
    return _Player(kind, dict(arguments), peak)
