"""What travels between the parts: a sample goes into a codec, entries come out, batches reach the denoiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import CacheError, Issue

if TYPE_CHECKING:
    from torch import Tensor

RAGGED = "varlen_"
"""Tensors whose name begins so differ in their first size from item to item and are never stacked."""


LOSS_MASK = "loss_mask"
"""Where the loss counts, from 0 to 1: float32 of shape (frames, height, width) in latent cells."""

GUIDANCE = "guidance"
"""The scale that a generation tells a model which has guidance as an input: a float32 number of each item."""


@attrs.frozen(kw_only=True, eq=False)
class Sample:
    """One training item, or one request, as a codec sees it: decoded pixels and words.

    ``pixels`` is uint8 RGB of shape (frames, height, width, 3), already resized to its bucket; None where only text
    matters. ``controls`` are conditioning pictures or clips in the same form, by role, each of its own size. ``mask``
    is uint8 of shape (frames, height, width), or of one frame for all: where the loss counts.
    """

    name: str
    caption: str = ""
    pixels: Tensor | None = None
    controls: Mapping[str, Sequence[Tensor]] = attrs.field(factory=dict)
    mask: Tensor | None = None


@attrs.frozen(kw_only=True, eq=False)
class Entry:
    """What one stage made of one sample: named tensors without a batch dimension."""

    name: str
    tensors: Mapping[str, Tensor]

    @property
    def key(self) -> str:
        """The batch key: entries of equal keys can be stacked."""
        return batch_key(self.tensors)


def batch_key(tensors: Mapping[str, Tensor]) -> str:
    """Return the names and shapes of all tensors that must agree inside a batch, e.g. ``latents:16x1x8x8``."""
    stacked = sorted((n, t) for n, t in tensors.items() if not n.startswith(RAGGED))
    return " ".join(f"{name}:{'x'.join(map(str, tensor.shape))}" for name, tensor in stacked)


@attrs.frozen(kw_only=True, eq=False)
class Batch:
    """Entries of one batch key together: stacked tensors (first dimension = item), ragged ones as tuples.

    ``weights`` are what the items' losses are multiplied by; empty means 1 for each.
    """

    items: tuple[str, ...]
    bucket: str
    stacked: Mapping[str, Tensor]
    ragged: Mapping[str, tuple[Tensor, ...]]
    weights: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self.stacked[name]
        except KeyError:
            raise _absent(name, self.stacked) from None

    def each(self, name: str) -> tuple[Tensor, ...]:
        """Return the ragged tensors called ``varlen_<name>``, one for each item."""
        try:
            return self.ragged[RAGGED + name]
        except KeyError:
            raise _absent(RAGGED + name, self.ragged) from None

    def to(self, device: str) -> Batch:
        """Return the same batch with every tensor on a device."""
        return attrs.evolve(
            self,
            stacked={n: t.to(device) for n, t in self.stacked.items()},
            ragged={n: tuple(t.to(device) for t in ts) for n, ts in self.ragged.items()},
        )

    def select(self, items: Sequence[int]) -> Batch:
        """Return some of the items, by their places, as a batch of their own."""
        places = list(items)
        return attrs.evolve(
            self,
            items=tuple(self.items[place] for place in places),
            stacked={name: tensor[places] for name, tensor in self.stacked.items()},
            ragged={name: tuple(tensors[place] for place in places) for name, tensors in self.ragged.items()},
            weights=tuple(self.weights[place] for place in places) if self.weights else (),
        )


def collate(entries: Sequence[Mapping[str, Tensor]], *, items: Sequence[str], bucket: str) -> Batch:
    """Stack the tensors of several items of one batch key into a ``Batch``."""
    import torch

    names = entries[0].keys()
    return Batch(
        items=tuple(items),
        bucket=bucket,
        stacked={n: torch.stack([e[n] for e in entries]) for n in names if not n.startswith(RAGGED)},
        ragged={n: tuple(e[n] for e in entries) for n in names if n.startswith(RAGGED)},
    )


def _absent(name: str, present: Mapping[str, object]) -> CacheError:
    hint = "the cache was made for another task; build it with this model"
    there = ", ".join(present) or "nothing"
    return CacheError("the batch lacks a tensor", [Issue(name, f"only {there} is there", hint)])
