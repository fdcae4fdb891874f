"""Fill a module that lives on the meta device from a checkpoint, tensor by tensor."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from musubi.architecture import WeightHook
from musubi.core.errors import Issue, WeightsError
from musubi.keymap import KeyMap
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.companions import Companions
from musubi.weights.filling import Filler, matches, scale_place, segments
from musubi.weights.naming import PREFIXES, Piece, plan_pieces, strip
from musubi.weights.progress import loading
from musubi.weights.room import give_back
from musubi.weights.slots import Slots

logger = logging.getLogger(__name__)

_SHOWN = 12
_AT_ONCE = 16 << 20
"""Bytes to read before memory that hooks have freed is given back."""


def load_into(
    model: nn.Module,
    checkpoint: Checkpoint,
    *,
    keys: KeyMap,
    device: torch.device | str,
    dtype: torch.dtype,
    on_weight: WeightHook | None = None,
    prefixes: Sequence[str] = PREFIXES,
    ignore: Sequence[str] = (),
    keep_float32: Sequence[str] = (),
) -> None:
    """Fill ``model``, whose parameters are on the meta device, reading one tensor at a time.

    The checkpoint's names may be the original ones or the library's, with one of ``prefixes`` before them; ``keys``
    translates. ``on_weight`` sees every tensor on ``device``, in the file's type and under its original name. What it
    returns as a tensor is cast to ``dtype``, or to float32 where the original name matches a ``keep_float32`` pattern;
    what it returns as a mapping is stored as it is. Buffers that the checkpoint does not hold keep type and value.

    A matrix that the file holds in 8 bits stays in these bits, with its scales, where the model has places of that very
    form (``weight`` of its type; ``scale`` of the shape of its scales, or none); ``on_weight`` does not see it. Any
    other is read as what it stands for: ``on_weight`` sees float32.

    Args:
        model: The module to fill; its parameters come out frozen.
        checkpoint: Where the tensors are.
        keys: Original names <-> the module's names.
        device: Where the parameters go.
        dtype: The type of floating-point parameters.
        on_weight: Changes tensors on their way, for example merges or quantises them.
        prefixes: What names may begin with beside what ``keys`` knows.
        ignore: Patterns (full match) of names in the file, without prefix, that are not wanted.
        keep_float32: Patterns (full match) of original names whose tensors stay in float32.

    Raises:
        WeightsError: Names are unknown, missing or claimed twice, shapes differ (all of it reported together), the file
            is damaged.
    """
    slots, place = Slots(model), torch.device(device)
    found = Companions.of(checkpoint.stated())
    names = {name: strip(name, prefixes) for name in checkpoint.names()}
    wanted = {name: short for name, short in names.items() if not matches(short, ignore)}
    pieces, issues = plan_pieces({n: s for n, s in wanted.items() if n not in found.names}, keys, slots.names)
    filler = Filler(
        slots=slots,
        checkpoint=checkpoint,
        scales=found.scales,
        device=place,
        dtype=dtype,
        on_weight=on_weight,
        keep_float32=keep_float32,
    )
    issues += [issue for issue in found.issues if issue.path in wanted]
    issues += [Issue(name, "is in more than one file") for name in checkpoint.repeated if name in wanted]
    issues += [*_wrong_shapes(pieces, slots, checkpoint), *_without_scales(pieces, filler), *_missing(pieces, filler)]
    if issues:
        raise WeightsError(f"{checkpoint.label} does not fit the model", _shortened(issues))
    _fill(filler, pieces)
    _finish(model, slots, checkpoint, place)


def _fill(filler: Filler, pieces: Sequence[Piece]) -> None:
    waiting = 0
    with loading(filler.checkpoint.paths[0].name, sum(map(filler.nbytes, pieces))) as came:
        for piece in pieces:
            filler.fill(piece)
            came(filler.nbytes(piece))
            waiting += filler.nbytes(piece)
            if waiting > _AT_ONCE and filler.on_weight is not None:
                give_back()
                waiting = 0


def _wrong_shapes(pieces: Iterable[Piece], slots: Slots, checkpoint: Checkpoint) -> list[Issue]:
    issues: list[Issue] = []
    for piece in pieces:
        shapes = {name: checkpoint.shape(name) for name in piece.sources}
        targets = [slots.shape(name) for name in piece.targets]
        if len(shapes) == 1:
            whole = (sum(shape[0] for shape in targets), *targets[0][1:]) if len(targets) > 1 else targets[0]
            pairs = [(piece.original, shapes[piece.sources[0]], whole)]
        else:
            pairs = [(name, shape, target) for (name, shape), target in zip(shapes.items(), targets, strict=True)]
        issues += [
            Issue(name, f"has shape {_text(found)}, the model's is {_text(wanted)}")
            for name, found, wanted in pairs
            if found != wanted
        ]
    return issues


def _without_scales(pieces: Iterable[Piece], filler: Filler) -> list[Issue]:
    """Name matrices of whole numbers that nothing says the meaning of."""
    return [
        Issue(piece.original, "is stored as whole numbers without scales")
        for piece in pieces
        if any(filler.is_meaningless(segment) for segment in segments(piece, filler.slots))
    ]


def _missing(pieces: Sequence[Piece], filler: Filler) -> list[Issue]:
    """Name what nothing fills; with a hook, its module being filled is enough, since the hook may add tensors."""
    slots = filler.slots
    filled = {slots.canonical(name) for piece in pieces for name in piece.targets}
    kept = {scale_place(name) for piece in pieces if filler.keeps(piece) for name in piece.targets}
    modules = {name.rpartition(".")[0] for name in filled if filler.on_weight is not None}
    absent = [name for name in slots.required if name not in filled | kept and name.rpartition(".")[0] not in modules]
    return [Issue(name, "is missing from the file") for name in absent]


def _finish(model: nn.Module, slots: Slots, checkpoint: Checkpoint, device: torch.device) -> None:
    empty = [Issue(name, "was not filled") for name in slots.still_empty()]
    if empty:
        raise WeightsError(f"{checkpoint.label} does not fit the model", _shortened(empty))
    for module in model.modules():
        for leaf, buffer in list(module.named_buffers(recurse=False)):
            if buffer.device != device:
                setattr(module, leaf, buffer.to(device))
    logger.debug("loaded %d tensors from %s", len(slots.required), checkpoint.label)


def _shortened(issues: Sequence[Issue]) -> list[Issue]:
    """Keep the first of each kind of problem and say how many more there are."""
    kept: list[Issue] = []
    kinds: dict[str, list[Issue]] = {}
    for issue in issues:
        kinds.setdefault(re.sub(r"[\d x]+", " ", issue.message), []).append(issue)
    for same in kinds.values():
        kept += same[:_SHOWN]
        if len(same) > _SHOWN:
            kept.append(Issue("", f"... and {len(same) - _SHOWN} more that {_verb(same[0].message)}"))
    return kept


def _verb(message: str) -> str:
    return message.replace("is ", "are ", 1).replace("has ", "have ", 1).split(",")[0]


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
