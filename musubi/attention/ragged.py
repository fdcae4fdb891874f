"""Which tokens of a batch count, where its samples have texts of different lengths.

Shapes: B batch, L text tokens, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Ragged(NamedTuple):
    """How many of its first tokens count in each sample; the rest is padding. At least two samples differ.

    A named tuple, so that checkpointing, compiled blocks and hooks see the numbers and the tensor in it. ``ends`` is
    where the samples end when what counts is laid in a row, after a 0: int32 (B + 1), as varlen kernels take it.
    """

    counts: tuple[int, ...]
    ends: Tensor


def ragged(counts: Sequence[int], *, more: int = 0, device: torch.device) -> Ragged | None:
    """Return what attention has to know, or None where all samples are as long and nothing need be said.

    Args:
        counts: Valid text tokens of each sample.
        more: Tokens before the text, all of which count.
        device: Where attention runs.
    """
    if len(set(counts)) <= 1:
        return None
    totals = tuple(count + more for count in counts)
    return Ragged(totals, torch.tensor([0, *itertools.accumulate(totals)], dtype=torch.int32, device=device))


def cropped(text: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[int, ...]]:
    """Return the text (B, L, D) up to the end of the longest, and the length of each.

    Reading a mask on a device waits for it, once for all blocks; one on the host costs nothing.

    Args:
        text: Embeddings, shorter ones filled up at the end.
        mask: True (B, L) where there is text; None where all is.
    """
    if mask is None:
        return text, (text.shape[1],) * len(text)
    valid = mask.bool()
    gaps = (valid[:, 1:] > valid[:, :-1]).sum(dim=1)
    counts, broken = torch.stack([valid.sum(dim=1), gaps]).tolist()
    assert not any(broken), "padding follows the text; it is never in or before it"
    return text[:, : max(counts)], tuple(counts)
