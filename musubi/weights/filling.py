"""How the tensors of a checkpoint come into a module's slots, one at a time and without whole copies between."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from musubi.architecture import WeightHook
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.companions import Scale
from musubi.weights.lifting import cut, lift, read_scale
from musubi.weights.naming import Piece
from musubi.weights.room import owned, room
from musubi.weights.slots import Slots
from musubi.weights.stored import KEPT


@attrs.frozen
class Segment:
    """The rows of a file's tensor, from ``start`` on, that one parameter takes."""

    source: str
    start: int
    target: str


def segments(piece: Piece, slots: Slots) -> list[Segment]:
    """Say which rows of which tensor each parameter of a piece takes: an own tensor, or a share of a common one."""
    first, *others = piece.sources
    if others:
        return [Segment(source, 0, target) for source, target in zip(piece.sources, piece.targets, strict=True)]
    start = 0
    found: list[Segment] = []
    for target in piece.targets:
        found.append(Segment(first, start, target))
        start += _height(slots.shape(target))
    return found


@attrs.frozen(kw_only=True, eq=False)
class Filler:
    """Fills the slots of a module from a checkpoint; ``load_into`` says with what."""

    slots: Slots
    checkpoint: Checkpoint
    scales: Mapping[str, Scale]
    device: torch.device
    dtype: torch.dtype
    on_weight: WeightHook | None
    keep_float32: Sequence[str]

    def keeps(self, piece: Piece) -> bool:
        """Tell whether the model's slots have the very form of a matrix of 8 bits in the file."""
        return all(self._same_form(segment) for segment in segments(piece, self.slots))

    def fill(self, piece: Piece) -> None:
        """Read what makes up one original tensor, let the hook see it unless it is kept as it is, and store it."""
        if self.keeps(piece):
            for segment in segments(piece, self.slots):
                self._keep(segment)
        elif self.on_weight is None:
            for segment in segments(piece, self.slots):
                dtype = self._type(piece.original, self._read_type(segment.source))
                tensor = self._read(segment.source, self.slots.shape(segment.target), dtype, segment.start)
                self.slots.put(segment.target, tensor)
        else:
            self._store(piece, self.on_weight(piece.original, self._whole(piece)))

    def nbytes(self, piece: Piece) -> int:
        """Return how many bytes of the file a piece is."""
        shapes = [(self.checkpoint.shape(name), self.checkpoint.dtype(name)) for name in piece.sources]
        return sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes)

    def is_meaningless(self, segment: Segment) -> bool:
        """Tell whether the file holds whole numbers of 8 bits, without scales, where the model has others."""
        dtype = self.checkpoint.dtype(segment.source)
        if dtype not in {torch.int8, torch.uint8} or segment.source in self.scales:
            return False
        scaled = self.slots.stored_shape(scale_place(segment.target)) is not None
        return scaled or self.slots.dtype(segment.target).is_floating_point

    def _same_form(self, segment: Segment) -> bool:
        dtype = self.checkpoint.dtype(segment.source)
        name = str(dtype).removeprefix("torch.")
        if not segment.target.endswith("weight") or name not in KEPT or self.slots.dtype(segment.target) != dtype:
            return False
        place = self.slots.stored_shape(scale_place(segment.target))
        scale = self.scales.get(segment.source)
        if scale is None or place is None:
            return scale is None and place is None and dtype.is_floating_point
        rows = _height(self.slots.shape(segment.target))
        return place == (rows, *scale.form[1:]) if scale.form else math.prod(place) == 1

    def _keep(self, segment: Segment) -> None:
        shape, dtype = self.slots.shape(segment.target), self.checkpoint.dtype(segment.source)
        stored = room(shape, dtype, self.device)
        self.checkpoint.copy(segment.source, stored, start=segment.start)
        self.slots.put(segment.target, stored)
        if segment.source in self.scales:
            rows = slice(segment.start, segment.start + _height(shape))
            scale = cut(read_scale(self.checkpoint, self.scales[segment.source]), rows)
            place = self.slots.stored_shape(scale_place(segment.target))
            assert place is not None, "only a slot of the same form keeps a scale"
            self.slots.put(scale_place(segment.target), owned(scale.to(self.device).reshape(place)))

    def _whole(self, piece: Piece) -> Tensor:
        """Return an original tensor as the hook sees it: in the file's type, or float32 if that is of 8 bits."""
        shapes = [self.checkpoint.shape(name) for name in piece.sources]
        dtype = self._read_type(piece.sources[0])
        if len(shapes) == 1:
            return self._read(piece.sources[0], shapes[0], dtype, 0)
        whole = room((sum(map(_height, shapes)), *shapes[0][1:]), dtype, self.device)
        for name, part in zip(piece.sources, whole.split([_height(shape) for shape in shapes]), strict=True):
            self._copy(name, part, 0)
        return whole

    def _read(self, name: str, shape: Sequence[int], dtype: torch.dtype, start: int) -> Tensor:
        tensor = room(shape, dtype, self.device)
        self._copy(name, tensor, start)
        return tensor

    def _copy(self, name: str, target: Tensor, start: int) -> None:
        if name in self.scales:
            lift(self.checkpoint, name, read_scale(self.checkpoint, self.scales[name]), target, start=start)
        else:
            self.checkpoint.copy(name, target, start=start)

    def _store(self, piece: Piece, result: Tensor | Mapping[str, Tensor]) -> None:
        """Store what a hook returned: a tensor in the type it should have, several as they are."""
        heights = [_height(self.slots.shape(name)) for name in piece.targets]
        if isinstance(result, Tensor):
            kept = self._type(piece.original, result.dtype)
            for target, part in zip(piece.targets, _rows(result.detach(), heights), strict=True):
                self.slots.put(target, _converted(part, kept, self.device))
            return
        for leaf, tensor in result.items():
            for target, part in zip(piece.targets, _rows(tensor.detach(), heights), strict=True):
                shared = len(heights) > 1 and part.shape == tensor.shape
                self.slots.put(_sibling(target, leaf), part.clone() if shared else owned(part))

    def _read_type(self, source: str) -> torch.dtype:
        """Return the type in which a tensor is read: the file's own, or float32 if what it means is wider than that."""
        dtype = self.checkpoint.dtype(source)
        narrow = dtype.is_floating_point and dtype.itemsize == 1
        return torch.float32 if narrow or source in self.scales else dtype

    def _type(self, original: str, found: torch.dtype) -> torch.dtype:
        if not found.is_floating_point:
            return found
        return torch.float32 if matches(original, self.keep_float32) else self.dtype


def scale_place(weight: str) -> str:
    """Return the slot of the scales of a weight."""
    return _sibling(weight, "scale")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a whole name is of one of the patterns."""
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _sibling(name: str, leaf: str) -> str:
    module = name.rpartition(".")[0]
    return f"{module}.{leaf}" if module else leaf


def _height(shape: Sequence[int]) -> int:
    return shape[0] if shape else 1


def _rows(tensor: Tensor, heights: Sequence[int]) -> Sequence[Tensor]:
    """Split a tensor among parameters by their rows; what has no such rows (a common scale) each gets whole."""
    if len(heights) == 1 or tensor.ndim == 0 or tensor.shape[0] != sum(heights):
        return [tensor] * len(heights)
    return torch.split(tensor, list(heights))


def _converted(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a tensor of a type on a device with memory of its own, in one step."""
    if tensor.dtype == dtype and tensor.device == device:
        return owned(tensor)
    return room(tensor.shape, dtype, device).copy_(tensor)
