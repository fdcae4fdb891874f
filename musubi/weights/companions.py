"""What quantised checkpoints keep beside their weights: scales, and what nobody needs to read a weight.

Known are ComfyUI's names, the older ``X.scale_weight`` (with a marker ``scaled_fp8``) and the newer ``X.weight_scale``
(with ``X.comfy_quant``). Torch-free: types are torch's names, e.g. ``float8_e4m3fn``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from musubi.core.errors import Issue

_SCALES = ("scale_weight", "weight_scale")
_UNREAD = re.compile(r"(.*\.)?(scaled_fp8|scale_input|input_scale|comfy_quant)")
"""A marker, scales of the inputs of products in 8 bits, and the name of the format."""

_SCALED = frozenset({"float8_e4m3fn", "float8_e5m2", "int8", "float16", "bfloat16", "float32"})
_SCALE_TYPES = frozenset({"float64", "float32", "float16", "bfloat16"})


@attrs.frozen
class Stated:
    """What a header tells of a tensor."""

    dtype: str
    shape: tuple[int, ...]


@attrs.frozen
class Scale:
    """The scales of a weight: their name in the file, and their shape as ``scale_form`` writes it."""

    name: str
    form: tuple[int, ...]


@attrs.frozen(kw_only=True)
class Companions:
    """What among a checkpoint's tensors is no weight."""

    scales: Mapping[str, Scale]
    """Name of a weight in the file -> its scales."""

    names: frozenset[str]
    """All that is no weight, the scales included."""

    issues: tuple[Issue, ...]
    """Scales that belong to nothing, or that do not fit."""

    @classmethod
    def of(cls, tensors: Mapping[str, Stated]) -> Companions:
        """Find the companions among the tensors of all files of a checkpoint together."""
        owners = {name: owner for name in tensors if (owner := _owner(name)) is not None}
        scales: dict[str, Scale] = {}
        issues: list[Issue] = []
        for name, weight in owners.items():
            found = _fitted(name, weight, tensors, scales)
            if isinstance(found, Issue):
                issues.append(found)
            else:
                scales[weight] = found
        unread = (name for name in tensors if _UNREAD.fullmatch(name))
        return cls(scales=scales, names=frozenset((*owners, *unread)), issues=tuple(issues))


def scale_form(scale: tuple[int, ...], weight: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape that scales have for a weight of a shape: (), (rows, 1) or (rows, blocks, 1).

    One number is for the whole weight, one for each row for that row, and several for a row for equal blocks of its
    inputs. None if the scales do not fit.
    """
    match scale:
        case sides if all(side == 1 for side in sides):
            return ()
        case (rows,) | (rows, 1) | (rows, 1, 1) if weight and rows == weight[0]:
            return rows, 1
        case (rows, blocks) | (rows, blocks, 1) if len(weight) == 2 and rows == weight[0] and blocks > 0:
            return (rows, blocks, 1) if weight[1] % blocks == 0 else None
        case _:
            return None


def _owner(name: str) -> str | None:
    """Return the weight that a tensor is the scale of, None if it is no scale."""
    module, dot, leaf = name.rpartition(".")
    return f"{module}.weight" if dot and leaf in _SCALES else None


def _fitted(name: str, weight: str, tensors: Mapping[str, Stated], scales: Mapping[str, Scale]) -> Scale | Issue:
    if weight not in tensors:
        return Issue(name, "is a scale without its weight")
    if weight in scales:
        return Issue(name, f"is a second scale, beside {scales[weight].name}")
    scale, owner = tensors[name], tensors[weight]
    if scale.dtype not in _SCALE_TYPES or owner.dtype not in _SCALED:
        return Issue(name, f"is a scale of type {scale.dtype} of a weight of type {owner.dtype}: not supported")
    form = scale_form(scale.shape, owner.shape)
    if form is None:
        return Issue(name, f"has shape {_text(scale.shape)}, which scales no weight of shape {_text(owner.shape)}")
    return Scale(name, form)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
