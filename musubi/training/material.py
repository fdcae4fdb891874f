"""What a run learns from, and for how long: known before any weight is loaded."""

from __future__ import annotations

import attrs

from musubi.architecture import Architecture
from musubi.cache.loader import Loader
from musubi.training.counting import total_steps
from musubi.training.processes import Processes
from musubi.training.trainer import Trainer
from musubi.training.validator import Validator


@attrs.frozen(kw_only=True)
class Material:
    """The loaders of the run's own data and of its regularisation data, what it is measured on, and its steps."""

    loader: Loader
    prior: Loader | None
    validator: Validator | None
    total: int

    @classmethod
    def open(cls, trainer: Trainer[Architecture], processes: Processes) -> Material:
        """Open the caches.

        Raises:
            CacheError: One is not built, or holds nothing to train on.
        """
        seed, rank, world = trainer.seed, processes.rank, processes.count
        loader = trainer.cache.loader(seed=seed, rank=rank, world=world)
        prior, validation = trainer.prior, trainer.validation
        return cls(
            loader=loader,
            prior=prior.cache.loader(seed=seed, rank=rank, world=world) if prior is not None else None,
            validator=Validator(validation, trainer.cache, processes) if validation is not None else None,
            total=_total(trainer, loader, processes),
        )

    @property
    def content(self) -> str:
        """What tells this data from other data."""
        return self.loader.content if self.prior is None else f"{self.loader.content}+{self.prior.content}"


def _total(trainer: Trainer[Architecture], loader: Loader, processes: Processes) -> int:
    if trainer.epochs is None:
        return trainer.steps or trainer.usual_steps
    return total_steps(trainer.epochs, len(loader), accumulate=trainer.accumulate, processes=processes.count)
