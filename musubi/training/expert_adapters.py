"""The adapters of several experts as one: what a run trains, keeps in its state and averages."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import cast

import attrs
from torch import nn

from musubi.core.events import WeightNorms
from musubi.networks.trained import Trained
from musubi.parameters import ParameterGroup


class ExpertAdapters(Trained):
    """What is trained on each of a model's experts, by their names; ``rates`` multiply the rates of some.

    The model that it is attached to is a ``nn.ModuleDict`` of the experts' models by the same names.
    """

    def __init__(self, experts: Mapping[str, Trained], *, rates: Mapping[str, float]) -> None:
        super().__init__()
        self._experts, self._rates = dict(experts), dict(rates)
        self.experts = nn.ModuleDict(self._experts)

    def of(self, expert: str) -> Trained:
        """Return what is trained on one expert."""
        return self._experts[expert]

    def groups(self) -> tuple[ParameterGroup, ...]:
        """Return each expert's groups, called after it: ``high unet``, ``low unet``."""
        return tuple(
            attrs.evolve(group, name=f"{name} {group.name}", rate=group.rate * self._rates.get(name, 1.0))
            for name, trained in self._experts.items()
            for group in trained.groups()
        )

    @contextmanager
    def attached(self, model: nn.Module) -> Generator[None]:
        """Attach everything to its expert's model for the duration of a ``with`` block."""
        models = cast(nn.ModuleDict, model)
        with ExitStack() as stack:
            for name, trained in self._experts.items():
                stack.enter_context(trained.attached(models[name]))
            yield

    @contextmanager
    def switched_off(self) -> Generator[None]:
        """Let all experts compute as before training for the duration of a ``with`` block."""
        with ExitStack() as stack:
            for trained in self._experts.values():
                stack.enter_context(trained.switched_off())
            yield

    @property
    def zero_effect(self) -> bool:
        """Whether no expert computes anything else than before training."""
        return all(trained.zero_effect for trained in self._experts.values())

    def limit_norms(self) -> WeightNorms | None:
        """Scale down what has grown beyond the limits; the mean is that of the experts' means."""
        found = [norms for trained in self._experts.values() if (norms := trained.limit_norms()) is not None]
        if not found:
            return None
        return WeightNorms(
            scaled=sum(norms.scaled for norms in found),
            mean=sum(norms.mean for norms in found) / len(found),
            largest=max(norms.largest for norms in found),
        )
