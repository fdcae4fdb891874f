"""A loaded model's own parameters as what a run trains."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from musubi.architecture import Layout
from musubi.core.errors import ConfigError, Issue
from musubi.keymap import KeyMap
from musubi.networks.targets import Targets
from musubi.networks.trained import Trained
from musubi.parameters import ParameterGroup

_SAME_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_EVERYTHING = (r".*",)


class FullWeights(Trained):
    """Parameters of a model, known by their library names; they stay where they are.

    ``state_dict`` has them under ``model.`` and their library names.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        super().__init__()
        self._weights = dict(weights)
        self.model = _tree(weights)
        self._start = {name: _fingerprint(weight) for name, weight in weights.items()}

    @classmethod
    def of(cls, model: nn.Module, targets: Targets, *, keys: KeyMap, layout: Layout) -> FullWeights:
        """Return the targeted parameters of a loaded model.

        Raises:
            ConfigError: A pattern matches no module, or nothing is left to train.
        """
        return cls(targeted_parameters(model, targets, keys=keys, layout=layout))

    def groups(self) -> tuple[ParameterGroup, ...]:
        """Return one group of all parameters, in the model's order."""
        return (ParameterGroup(name="model", parameters=tuple(self._weights.values())),)

    @contextmanager
    def attached(self, model: nn.Module) -> Generator[None]:
        """Let the parameters take gradients for the duration of a ``with`` block; they keep what they learn in it."""
        own = {id(parameter) for parameter in model.parameters()}
        assert all(id(weight) in own for weight in self._weights.values()), "these are another model's parameters"
        try:
            for weight in self._weights.values():
                weight.requires_grad = True
            yield
        finally:
            for weight in self._weights.values():
                weight.requires_grad = False
                weight.grad = None

    def switched_off(self) -> AbstractContextManager[None]:
        """Refuse: what the model was before training is not kept."""
        hint = "train a LoRA for that, or let regularisation pictures teach themselves"
        raise ConfigError("full fine-tuning", [Issue("network", "the model as it was before is gone", hint)])

    @property
    def zero_effect(self) -> bool:
        """Whether no parameter has changed, as far as checksums tell; of a divided model, this process's part."""
        return all(_fingerprint(weight) == self._start[name] for name, weight in self._weights.items())

    def base_weights(self) -> Mapping[str, Tensor]:
        """Return the trained parameters by library name."""
        return dict(self._weights)


def targeted_parameters(model: nn.Module, targets: Targets, *, keys: KeyMap, layout: Layout) -> dict[str, nn.Parameter]:
    """Return the parameters of targeted modules by library name, in the model's order; tied ones once.

    Raises:
        ConfigError: A pattern matches no module, or nothing is left to train.
    """
    owners = {name: _module(keys.to_original(name)[0]) for name, _ in model.named_parameters()}
    wanted = set(targets.choose(dict.fromkeys(owners.values()), default=_EVERYTHING, presets=layout.presets))
    return {name: parameter for name, parameter in model.named_parameters() if owners[name] in wanted}


def _module(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _tree(weights: Mapping[str, nn.Parameter]) -> nn.Module:
    """Return modules without forward that hold the parameters under their dotted names."""
    root = nn.Module()
    for name, weight in weights.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            children = dict(module.named_children())
            if part not in children:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, weight)
    return root


def _fingerprint(weight: Tensor) -> int:
    """Return the sum of a tensor's bits read as integers: what an update practically always changes."""
    local = getattr(weight, "to_local", None)
    here: Tensor = weight.detach() if local is None else local().detach()
    return int(here.contiguous().view(_SAME_BITS[here.element_size()]).sum(dtype=torch.int64))
