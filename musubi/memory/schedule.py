"""Which blocks stream, and which block takes a slot next: pure arithmetic, without tensors."""

from __future__ import annotations

import attrs


def spread(streamed: int, blocks: int) -> tuple[int, ...]:
    """Return the indices of ``streamed`` of ``blocks`` blocks, evenly spaced: floor((2i + 1) * blocks / 2 / streamed).

    Even spacing gives each copy ``blocks / streamed`` block-times to finish in. Source: musubi-tuner (June 2026),
    ring of ``--block_swap_h2d_only``.
    """
    return tuple((2 * i + 1) * blocks // (2 * streamed) for i in range(streamed))


@attrs.frozen
class Turns:
    """Who follows whom in the slots of a ring: ``blocks`` streamed ones (ranks) share ``slots`` buffers.

    A rank always uses the same slot, because autograd may hold views of it from forward to backward. The last ranks of
    a forward stay and are the first that backward needs, so a step copies 2 * (blocks - slots) blocks.
    """

    blocks: int
    slots: int

    def slot(self, rank: int) -> int:
        """Return the slot of a rank."""
        return rank % self.slots

    def after_forward(self, rank: int, *, again: bool) -> tuple[int, ...]:
        """Return the ranks to load once ``rank`` has been used in forward.

        ``again`` means that another forward follows instead of a backward: then the first ranks come back at the end.
        """
        if rank + self.slots < self.blocks:
            return (rank + self.slots,)
        return tuple(range(self.slots)) if again and rank == self.blocks - 1 else ()

    def after_backward(self, rank: int) -> tuple[int, ...]:
        """Return the ranks to load once the gradient of ``rank`` has been computed."""
        return (rank - self.slots,) if rank >= self.slots else ()
