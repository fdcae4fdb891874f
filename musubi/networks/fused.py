"""Modules that a checkpoint fuses and diffusers has in parts: an adapter cut by rows, and put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor

from musubi.core.errors import Issue, WeightsError
from musubi.networks.weights import AdapterWeights, LoRAWeights


def part_rows(inputs: int, outputs: int, parts: int) -> tuple[int, ...]:
    """Return how many rows of a fused module each of its parts has.

    Checkpoints fuse query, key and value, and after them the inner layer of a feed-forward: all but the last part are
    square, the last has the remaining rows.

    Raises:
        WeightsError: The numbers do not allow that.
    """
    rows = (*[inputs] * (parts - 1), outputs - inputs * (parts - 1))
    if rows[-1] <= 0:
        message = f"{outputs} rows cannot be {parts} parts of a module with {inputs} inputs"
        raise WeightsError("the LoRA does not fit this model", [Issue("", message)])
    return rows


def cut(weights: AdapterWeights, rows: Sequence[int]) -> tuple[LoRAWeights, ...]:
    """Return an adapter for each part of a module: all have the same ``down``, each its own rows of the rest.

    Raises:
        WeightsError: The adapter is no LoRA, whose rows alone can be cut.
    """
    lora = cuttable(weights, len(rows))
    magnitudes = lora.magnitude.split(list(rows)) if lora.magnitude is not None else [None] * len(rows)
    return tuple(
        attrs.evolve(lora, up=up, magnitude=magnitude)
        for up, magnitude in zip(lora.up.split(list(rows)), magnitudes, strict=True)
    )


def cuttable(weights: AdapterWeights, parts: int) -> LoRAWeights:
    """Return an adapter that is a LoRA; raise ``WeightsError`` for others."""
    if isinstance(weights, LoRAWeights):
        return weights
    hint = "save it in another layout, or turn it into a LoRA: resized(rank=...)"
    problem = Issue("", f"a {weights.kind} cannot be cut into {parts} parts", hint)
    raise WeightsError("cannot save the LoRA", [problem])


def join(parts: Mapping[int, AdapterWeights], rows: Sequence[int]) -> LoRAWeights:
    """Return one adapter with the same delta as the adapters of a module's parts.

    Parts with the same ``down`` share it, as ``cut`` leaves them. Others are put side by side: the result's rank is the
    sum of the different ones. Parts without adapter get zeros.

    Args:
        parts: The adapters by the part's number.
        rows: How many rows each part has.

    Raises:
        WeightsError: An adapter is no LoRA, or DoRA's magnitudes are there for some rows only.
    """
    loras = {index: weights for index, weights in parts.items() if isinstance(weights, LoRAWeights)}
    problem = _not_joinable(parts, loras, len(rows))
    if problem:
        raise WeightsError("the LoRA does not fit this model", [Issue("", problem)])
    blocks = _blocks(loras)
    strengths = {weights.strength for weights in loras.values()}
    if len(blocks) > 1 and len(strengths) > 1:
        blocks = [[(index, weights.folded()) for index, weights in block] for block in blocks]
    rank = sum(block[0][1].rank for block in blocks)
    first = blocks[0][0][1]
    return LoRAWeights(
        down=torch.cat([block[0][1].down for block in blocks]),
        up=_beside(blocks, rows, rank),
        alpha=first.alpha if len(blocks) == 1 else torch.tensor(first.strength * rank),
        magnitude=None if first.magnitude is None else _column(loras),
    )


_Block = list[tuple[int, LoRAWeights]]


def _not_joinable(parts: Mapping[int, AdapterWeights], loras: Mapping[int, LoRAWeights], count: int) -> str:
    if len(loras) < len(parts):
        return "only LoRAs of a module's parts can be one adapter of the whole module"
    decomposed = sum(weights.magnitude is not None for weights in loras.values())
    if decomposed and decomposed < count:
        return f"{decomposed} of its {count} parts have DoRA's magnitudes"
    return ""


def _blocks(loras: Mapping[int, LoRAWeights]) -> list[_Block]:
    """Gather the parts that share ``down`` and strength."""
    blocks: list[_Block] = []
    for item in sorted(loras.items(), key=lambda item: item[0]):
        for block in blocks:
            other, weights = block[0][1], item[1]
            if other.strength == weights.strength and torch.equal(other.down, weights.down):
                block.append(item)
                break
        else:
            blocks.append([item])
    return blocks


def _beside(blocks: Sequence[_Block], rows: Sequence[int], rank: int) -> Tensor:
    up = torch.zeros(sum(rows), rank, dtype=blocks[0][0][1].up.dtype)
    column = 0
    for block in blocks:
        width = block[0][1].rank
        for index, weights in block:
            start = sum(rows[:index])
            up[start : start + rows[index], column : column + width] = weights.up
        column += width
    return up


def _column(loras: Mapping[int, LoRAWeights]) -> Tensor:
    found = [weights.magnitude for _, weights in sorted(loras.items(), key=lambda item: item[0])]
    return torch.cat([magnitude for magnitude in found if magnitude is not None])
