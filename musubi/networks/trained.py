"""What a run trains and saves, whatever kind of network it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import Tensor, nn

from musubi.core.events import WeightNorms
from musubi.parameters import ParameterGroup


class Trained(nn.Module, ABC):
    """The trained parameters of a loaded model: adapters beside it, or its own weights.

    ``state_dict`` and ``load_state_dict`` are what a run's state keeps of it. ``train()`` and ``eval()`` switch
    dropout.
    """

    @abstractmethod
    def groups(self) -> tuple[ParameterGroup, ...]:
        """Return all trained parameters, each once, by their learning rates; the order is always the same."""

    @abstractmethod
    def attached(self, model: nn.Module) -> AbstractContextManager[None]:
        """Let the model use these parameters for the duration of a ``with`` block."""

    @abstractmethod
    def switched_off(self) -> AbstractContextManager[None]:
        """Let the model compute as before training for the duration of a ``with`` block.

        Raises:
            ConfigError: The model itself is trained, so there is nothing to go back to.
        """

    @property
    @abstractmethod
    def zero_effect(self) -> bool:
        """Whether the model computes what it computed before training."""

    def limit_norms(self) -> WeightNorms | None:
        """Scale down what has grown beyond the network's limit; None without one. Called after every update."""
        return None

    def base_weights(self) -> Mapping[str, Tensor]:
        """Return those of the model's own tensors that are trained, by library name; none for adapters."""
        return {}
