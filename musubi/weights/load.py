"""Fill a module that lives on the meta device from a checkpoint, tensor by tensor."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import WeightHook
from musubi.core.errors import Issue, WeightsError
from musubi.keymap import KeyMap
from musubi.weights.checkpoint import Checkpoint
from musubi.weights.naming import PREFIXES, Piece, plan_pieces, strip
from musubi.weights.slots import Slots

logger = logging.getLogger(__name__)

_SHOWN = 12
_QUANTISED = re.compile(r"(.*\.)?(scaled_fp8|scale_weight|weight_scale(_\w+)?|scale_input|input_scale|comfy_quant)")
_QUANTISED_HINT = "use the bf16, fp16 or plain fp8 version of these weights; musubi quantises them while loading"


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
            is quantised already, or it is damaged.
    """
    refuse_quantised(checkpoint)
    slots = Slots(model)
    names = {name: strip(name, prefixes) for name in checkpoint.names()}
    wanted = {name: short for name, short in names.items() if not _matches(short, ignore)}
    pieces, issues = plan_pieces(wanted, keys, slots.names)
    issues += _wrong_shapes(pieces, slots, checkpoint)
    issues += _missing(pieces, slots, lenient=on_weight is not None)
    if issues:
        raise WeightsError(f"{checkpoint.label} does not fit the model", _shortened(issues))
    filler = _Filler(
        slots=slots,
        checkpoint=checkpoint,
        device=torch.device(device),
        dtype=dtype,
        on_weight=on_weight,
        keep_float32=keep_float32,
    )
    for piece in pieces:
        filler.fill(piece)
    _finish(model, slots, checkpoint, torch.device(device))


def refuse_quantised(checkpoint: Checkpoint) -> None:
    """Raise ``WeightsError`` if the file's weights are quantised already (ComfyUI's ``fp8_scaled``, ...)."""
    found = next((name for name in checkpoint.names() if _QUANTISED.fullmatch(name)), None)
    if found is not None:
        problem = Issue(checkpoint.label, f"is already quantised (it contains {found!r})", _QUANTISED_HINT)
        raise WeightsError("quantised weights", [problem])


@attrs.frozen(kw_only=True, eq=False)
class _Filler:
    slots: Slots
    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype
    on_weight: WeightHook | None
    keep_float32: Sequence[str]

    def fill(self, piece: Piece) -> None:
        """Read one original tensor, let the hook see it, and store its rows."""
        source = self._read(piece)
        result = source if self.on_weight is None else self.on_weight(piece.original, source.to(self.device))
        if isinstance(result, Tensor):
            leaf = piece.targets[0].rpartition(".")[2]
            result = {leaf: result.to(self.device, self._type(piece.original, result))}
        heights = [(self.slots.shape(name) or (1,))[0] for name in piece.targets]
        for leaf, tensor in result.items():
            for target, part in zip(piece.targets, _rows(tensor, heights), strict=True):
                module = target.rpartition(".")[0]
                self.slots.put(f"{module}.{leaf}" if module else leaf, _own(part, source))

    def _read(self, piece: Piece) -> Tensor:
        tensors = [self.checkpoint.read(name) for name in piece.sources]
        return torch.cat(tensors) if len(tensors) > 1 else tensors[0]

    def _type(self, original: str, tensor: Tensor) -> torch.dtype:
        if not tensor.is_floating_point():
            return tensor.dtype
        return torch.float32 if _matches(original, self.keep_float32) else self.dtype


def _rows(tensor: Tensor, heights: Sequence[int]) -> Sequence[Tensor]:
    """Split a tensor among parameters by their rows; what has no such rows (a common scale) each gets whole."""
    if len(heights) == 1 or tensor.ndim == 0 or tensor.shape[0] != sum(heights):
        return [tensor] * len(heights)
    return torch.split(tensor, list(heights))


def _own(tensor: Tensor, source: Tensor) -> Tensor:
    """Return the tensor with memory of its own, not the file's and not shared with neighbours."""
    tensor = tensor.detach()
    shared = tensor.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
    partial = tensor.untyped_storage().nbytes() != tensor.nbytes
    return tensor.clone(memory_format=torch.contiguous_format) if shared or partial else tensor.contiguous()


def _wrong_shapes(pieces: Iterable[Piece], slots: Slots, checkpoint: Checkpoint) -> list[Issue]:
    issues: list[Issue] = []
    for piece in pieces:
        shapes = [checkpoint.shape(name) for name in piece.sources]
        found = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]
        targets = [slots.shape(name) for name in piece.targets]
        wanted = (sum(shape[0] for shape in targets), *targets[0][1:]) if len(targets) > 1 else targets[0]
        if found != wanted:
            issues.append(Issue(piece.original, f"has shape {_text(found)}, the model's is {_text(wanted)}"))
    return issues


def _missing(pieces: Iterable[Piece], slots: Slots, *, lenient: bool) -> list[Issue]:
    """Name what nothing fills; with a hook, its module being filled is enough, since the hook may add tensors."""
    filled = {slots.canonical(name) for piece in pieces for name in piece.targets}
    modules = {name.rpartition(".")[0] for name in filled}
    absent = [name for name in slots.required if name not in filled]
    return [
        Issue(name, "is missing from the file")
        for name in absent
        if not (lenient and name.rpartition(".")[0] in modules)
    ]


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


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns)
