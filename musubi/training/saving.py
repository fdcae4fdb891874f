"""Writing what a run trained: adapters as a LoRA file, a model as a checkpoint in its original names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Architecture, Expert
from musubi.core.errors import WeightsError
from musubi.keymap import KeyMap
from musubi.networks.adapters import AdapterSet
from musubi.networks.trained import Trained
from musubi.training.sharding import whole
from musubi.weights.checkpoint import open_checkpoint
from musubi.weights.slots import Slots
from musubi.weights.writing import Shape, streamed

_OURS = ("ss_", "modelspec.", "musubi.", "sshs_")
"""What a base checkpoint says of its own making, by the beginnings of keys: not true of what was trained from it."""


def save_trained(
    trained: Trained,
    model: nn.Module,
    path: Path,
    metadata: Mapping[str, str],
    architecture: Architecture,
    *,
    expert: Expert | None = None,
    leads: bool = True,
) -> None:
    """Write what was trained on a model: adapters in the architecture's usual layout, or the whole model.

    A model divided over processes is gathered tensor by tensor: all of them call this, only the one that ``leads``
    writes.

    Args:
        trained: What was trained.
        model: The model it was trained on.
        path: Where to; a file there is replaced when the new one is complete.
        metadata: Text for the header.
        architecture: Names of the model's modules.
        expert: Which of the architecture's models it is; None is the first.
        leads: Whether this process writes.

    Raises:
        ConfigError: The file cannot be written.
    """
    if not isinstance(trained, AdapterSet):
        told = {**_facts(architecture, expert), **metadata}
        save_model(model, path, told, keys=architecture.keys, marks=architecture.marks, leads=leads)
    elif leads:
        trained.to_file(metadata, model=architecture).save(path)


def save_model(
    model: nn.Module,
    path: Path,
    metadata: Mapping[str, str],
    *,
    keys: KeyMap,
    marks: Sequence[str] = (),
    leads: bool = True,
) -> None:
    """Write all of a model's tensors under their original names, each in the type that the model keeps it in.

    ``marks`` are names of further tensors, of one zero each, by which programs know the model. One tensor is in host
    memory at a time, beside the model itself.
    """
    tensors = [*_originals(model, keys), *(_Original(name, (torch.zeros(1),)) for name in marks)]
    with ExitStack() as stack:
        shapes = {tensor.name: tensor.shape for tensor in tensors}
        writer = stack.enter_context(streamed(path, shapes, {"format": "pt", **metadata})) if leads else None
        for tensor in tensors:
            joined = tensor.joined()
            if writer is not None:
                writer.put(tensor.name, joined)


@attrs.frozen(eq=False)
class _Original:
    """One tensor of the original checkpoint, and the model's tensors that are its rows."""

    name: str
    members: tuple[Tensor, ...]

    @property
    def shape(self) -> Shape:
        first = self.members[0]
        size = tuple(first.shape)
        if len(self.members) > 1:
            size = (sum(member.shape[0] for member in self.members), *size[1:])
        return Shape(first.dtype, size)

    def joined(self) -> Tensor:
        """Return the tensor on the host: the model's own if it is there and whole, else a copy."""
        if len(self.members) == 1:
            return whole(self.members[0]).cpu()
        joined = torch.empty(self.shape.size, dtype=self.shape.dtype)
        start = 0
        for member in self.members:
            joined[start : start + member.shape[0]].copy_(whole(member))
            start += member.shape[0]
        return joined


def _originals(model: nn.Module, keys: KeyMap) -> list[_Original]:
    """Return a model's tensors as the original checkpoint has them, tied ones once, in the model's order."""
    stored = {name: value for name, value in model.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    members: dict[str, tuple[str, ...]] = {}
    for name in Slots(model).required:
        original, _ = keys.to_original(name)
        members.setdefault(original, tuple(part.name for part in keys.to_library(original)))
    return [_Original(name, tuple(stored[part].detach() for part in parts)) for name, parts in members.items()]


def _facts(architecture: Architecture, expert: Expert | None) -> dict[str, str]:
    """Return what the base checkpoint's header says of the model, such as sizes that no shape tells."""
    return {key: value for key, value in _header(architecture, expert) if not key.startswith(_OURS)}


def _header(architecture: Architecture, expert: Expert | None) -> Iterator[tuple[str, str]]:
    try:
        path = architecture.weight((expert or architecture.experts[0]).component).resolve(offline=True)
        with open_checkpoint(path) as checkpoint:
            yield from checkpoint.metadata.items()
    except WeightsError:  # drawn, or a folder of parts: then there is no header
        return
