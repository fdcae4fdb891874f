"""Which blocks stream, and which block takes a slot next: pure arithmetic, without tensors."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from fractions import Fraction
from typing import Self

import attrs


def spread(streamed: int, blocks: int) -> tuple[int, ...]:
    """Return the indices of ``streamed`` of ``blocks`` blocks, evenly spaced: floor((2i + 1) * blocks / 2 / streamed).

    Even spacing gives each copy ``blocks / streamed`` block-times to finish in. Source: musubi-tuner (June 2026),
    ring of ``--block_swap_h2d_only``.
    """
    return tuple((2 * i + 1) * blocks // (2 * streamed) for i in range(streamed))


def weighted(streamed: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the indices of ``streamed`` blocks that have so many bytes each and take equally long to compute.

    A block is chosen as often as its bytes are few, so that the copies of any stretch of blocks have equal times: block
    i counts d_i = min(1, c / bytes_i) with c such that all d_i add up to ``streamed``, and block k is the one in which
    the running sum passes k + 1/2. Blocks of one size give ``spread``. HunyuanVideo's and FLUX's double blocks have 2.4
    times the bytes of single ones at equal computing, so they stream 2.4 times less often. Blocks without bytes are
    never chosen.
    """
    chosen: list[int] = []
    total = Fraction(0)
    for index, share in enumerate(_shares(streamed, sizes)):
        total += share
        if total > len(chosen) + Fraction(1, 2):
            chosen.append(index)
    return tuple(chosen)


def _shares(streamed: int, sizes: Sequence[int]) -> list[Fraction]:
    """Return how often each block streams, from 0 to 1: inversely to its size, adding up to ``streamed``."""
    always: set[int] = set()
    some = {index for index, size in enumerate(sizes) if size > 0}
    while some:
        left = streamed - len(always)
        scale = left / sum((Fraction(1, sizes[index]) for index in some), Fraction(0))
        full = {index for index in some if scale / sizes[index] >= 1}
        if not full:
            return [_share(index, always, some, scale, sizes) for index in range(len(sizes))]
        always, some = always | full, some - full
    return [Fraction(index in always) for index in range(len(sizes))]


def _share(index: int, always: set[int], some: set[int], scale: Fraction, sizes: Sequence[int]) -> Fraction:
    return scale / sizes[index] if index in some else Fraction(index in always)


@attrs.frozen
class Turns:
    """Who follows whom in the slots of a ring: ``blocks`` streamed ones (ranks) share ``slots`` buffers.

    A rank always uses the same slot, because autograd may hold views of it from forward to backward. The last ranks of
    a forward stay and are the first that backward needs, so a step copies 2 * (blocks - slots) blocks.

    With a ``lag``, backward frees a slot so many blocks after its own: until then the block's new weights are on their
    way back to the host. It takes a slot more for a copy to have the same time.
    """

    blocks: int
    slots: int
    lag: int = 0

    def slot(self, rank: int) -> int:
        """Return the slot of a rank."""
        return rank % self.slots

    def first(self) -> tuple[int, ...]:
        """Return the ranks that a forward begins with, one for each slot."""
        return tuple(range(self.slots))

    def after_forward(self, rank: int, *, again: bool) -> tuple[int, ...]:
        """Return the ranks to load once ``rank`` has been used in forward.

        ``again`` means that another forward follows instead of a backward: then the first ranks come back while the
        last ones are computed.
        """
        if rank + self.slots < self.blocks:
            return (rank + self.slots,)
        return (self.slot(rank),) if again else ()

    def after_backward(self, rank: int) -> tuple[int, ...]:
        """Return the ranks to load once the gradient of ``rank`` has been computed."""
        follower = rank + self.lag - self.slots
        return (follower,) if follower >= 0 and rank + self.lag < self.blocks else ()


@attrs.frozen
class Turn:
    """Where a streamed block belongs: the ring of its layout, and its rank in it."""

    ring: int
    rank: int


@attrs.frozen
class Schedule:
    """All streamed blocks of a model in execution order, each in the ring of those that are laid out as it is.

    One ring's first blocks wait in its slots while another's are computed, so that no ring begins with a wait.
    """

    turns: tuple[Turn, ...]
    rings: tuple[Turns, ...]

    @classmethod
    def of(cls, layouts: Sequence[Hashable], *, slots: int, lag: int = 0) -> Self:
        """Return the schedule of blocks of these layouts, where equal ones share up to ``slots`` slots."""
        numbers: dict[Hashable, int] = {}
        counts: list[int] = []
        turns: list[Turn] = []
        for layout in layouts:
            ring = numbers.setdefault(layout, len(numbers))
            if ring == len(counts):
                counts.append(0)
            turns.append(Turn(ring, counts[ring]))
            counts[ring] += 1
        return cls(tuple(turns), tuple(Turns(count, min(slots, count), lag) for count in counts))

    @property
    def numbers(self) -> range:
        """The rings' numbers."""
        return range(len(self.rings))

    def members(self, ring: int) -> Iterator[int]:
        """Yield the blocks of a ring by rank, as their places in the model's order."""
        return (place for place, turn in enumerate(self.turns) if turn.ring == ring)
