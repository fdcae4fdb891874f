"""The places of a module where tensors go: parameters and stored buffers by name, tied ones together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn


class Slots:
    """What a checkpoint has to fill in a module.

    A parameter that several modules share has several names and one slot, known by its first name.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._tensors = _stored(model)
        first: dict[int, str] = {}
        self._canonical = {name: first.setdefault(id(tensor), name) for name, tensor in self._tensors.items()}
        self._aliases: dict[str, list[str]] = {}
        for name, home in self._canonical.items():
            self._aliases.setdefault(home, []).append(name)

    @property
    def names(self) -> Mapping[str, str]:
        """Every name -> the name of its slot."""
        return MappingProxyType(self._canonical)

    @property
    def required(self) -> tuple[str, ...]:
        """The slots, each once, in the module's order."""
        return tuple(self._aliases)

    def canonical(self, name: str) -> str:
        """Return the slot of a name."""
        return self._canonical.get(name, name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of what fills a slot: of a Linear's weight that before it is quantised."""
        owner, _, leaf = name.rpartition(".")
        module = self._model.get_submodule(owner)
        if leaf == "weight" and isinstance(module, nn.Linear):
            return module.out_features, module.in_features
        return tuple(self._tensors[name].shape)

    def stored_shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a slot as it is, None if there is no such slot."""
        tensor = self._tensors.get(name)
        return None if tensor is None else tuple(tensor.shape)

    def dtype(self, name: str) -> torch.dtype:
        """Return the type of a slot."""
        return self._tensors[name].dtype

    def put(self, name: str, tensor: Tensor) -> None:
        """Store a tensor in a slot, under all its names, as a frozen parameter or as a buffer."""
        value: Tensor | None = None
        for alias in self._aliases.get(self.canonical(name), [name]):
            parent, _, leaf = alias.rpartition(".")
            module = self._model.get_submodule(parent)
            if any(leaf == buffer for buffer, _ in module.named_buffers(recurse=False)):
                setattr(module, leaf, tensor)
                continue
            value = nn.Parameter(tensor, requires_grad=False) if value is None else value
            module.register_parameter(leaf, value)  # type: ignore[arg-type]

    def still_empty(self) -> list[str]:
        """Return the slots that are on the meta device."""
        return [name for name, tensor in _stored(self._model).items() if tensor.is_meta]


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and stored buffers under all of their names."""
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
