"""The few blocks of a model that stand for all of them, so that a step can be followed in a second."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import nn

from musubi.memory.policy import MemoryPolicy, Phase, Placement, blocks_of, placed
from musubi.memory.quant_linear import QuantLinear

if TYPE_CHECKING:
    from musubi.architecture import Layout
    from musubi.keymap import KeyMap

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


@attrs.frozen(kw_only=True, eq=False)
class Excerpt:
    """A model with few of its blocks, in order, and which of these stands for each block of the whole model."""

    model: nn.Module
    blocks: tuple[nn.Module, ...]
    source: tuple[int, ...]


def settle(model: nn.Module, *, keys: KeyMap, dtype: torch.dtype, float32: Sequence[str] = ()) -> None:
    """Leave a model on the meta device as loading leaves one: frozen, in evaluation mode, with its types.

    Floating-point numbers of over one byte become ``dtype``, but for those that a pattern in ``float32`` (full match,
    ORIGINAL names) keeps.
    """
    model.eval().requires_grad_(requires_grad=False)
    kept = re.compile("|".join(f"(?:{pattern})" for pattern in float32)) if float32 else None
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.is_floating_point() or parameter.dtype.itemsize == 1:
                continue
            original, _ = keys.to_original(f"{path}.{name}" if path else name)
            kind = torch.float32 if kept is not None and kept.fullmatch(original) else dtype
            if isinstance(module, QuantLinear) and name == "scale":
                kind = _scale_type(module, dtype)
            if parameter.dtype != kind:
                empty = torch.empty(parameter.shape, dtype=kind, device="meta")
                setattr(module, name, nn.Parameter(empty, requires_grad=False))


def _scale_type(module: QuantLinear, dtype: torch.dtype) -> torch.dtype:
    """Return the type in which a matrix of ``dtype`` gets its scales."""
    _, scale = module.format.empty((module.out_features, module.in_features), dtype=dtype, device=module.weight.device)
    return dtype if scale is None else scale.dtype


@contextmanager
def excerpt(
    model: nn.Module, *, layout: Layout, policies: Sequence[MemoryPolicy], placement: Placement, inner: Wrap
) -> Generator[Excerpt]:
    """Cut a model, for good, down to one block of each kind beside the first and the last.

    Blocks are of a kind if they are alike in their modules, shapes and types, and in what checkpointing does with them;
    ``inner`` is put around every block's own forward, inside of that. What stands for a kind is its second block, which
    like most gets an input that needs a gradient.
    """
    blocks = blocks_of(model, layout)
    for block in blocks:
        block.forward = inner(block.forward)
    before = [vars(block)["forward"] for block in blocks]
    with placed(model, [policy for policy in policies if policy.phase is Phase.CHECKPOINT], placement):
        changed = [vars(block).get("forward") is not own for block, own in zip(blocks, before, strict=True)]
        lists = [path for path in layout.blocks for _ in model.get_submodule(path).children()]
        source, chosen = _chosen(list(zip(lists, map(_kind, blocks), changed, strict=True)))
        _keep(model, layout, chosen)
        yield Excerpt(model=model, blocks=tuple(blocks[i] for i in chosen), source=source)


def _chosen(kinds: Sequence[Hashable]) -> tuple[tuple[int, ...], list[int]]:
    """Return which of the chosen blocks stands for each block, and the places of the chosen ones."""
    last = len(kinds) - 1
    standing: dict[Hashable, int] = {}
    for kind in dict.fromkeys(kinds):
        places = [i for i, other in enumerate(kinds) if other == kind]
        inside = [i for i in places if 0 < i < last]
        standing[kind] = inside[min(1, len(inside) - 1)] if inside and inside[0] != 1 else (inside or places)[0]
    chosen = sorted({0, last, *standing.values()}) if kinds else []
    index = {place: i for i, place in enumerate(chosen)}
    return tuple(index[i] if i in (0, last) else index[standing[kind]] for i, kind in enumerate(kinds)), chosen


def _kind(block: nn.Module) -> Hashable:
    modules = tuple((name, type(module)) for name, module in block.named_modules())
    return modules, tuple((tuple(p.shape), p.dtype, p.requires_grad) for p in block.parameters())


def _keep(model: nn.Module, layout: Layout, chosen: Sequence[int]) -> None:
    start = 0
    for path in layout.blocks:
        members = list(model.get_submodule(path).children())
        kept = [block for i, block in enumerate(members, start) if i in chosen]
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.ModuleList(kept))
        start += len(members)
