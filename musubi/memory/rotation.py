"""Blocks of equal layout that take turns in a few device buffers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import attrs
import torch

from musubi.memory.boundaries import in_backward
from musubi.memory.copiers import Copier, Timed
from musubi.memory.schedule import Turns
from musubi.memory.slots import Member, Slot
from musubi.memory.trained_member import TrainedMember


@attrs.frozen(kw_only=True)
class Statistics:
    """What a ring has done so far.

    ``copies`` of blocks to the device had ``copied_bytes``; ``unforeseen`` of them were asked for only when the block
    was needed. ``returned`` blocks were copied back; ``late`` gradients came when their block had left its slot. The
    processor waited for ``waited_s`` seconds, and a device that can be asked for ``stalled_s`` (of all rings that share
    a copier).
    """

    blocks: int = 0
    slots: int = 0
    copies: int = 0
    copied_bytes: int = 0
    unforeseen: int = 0
    returned: int = 0
    late: int = 0
    waited_s: float = 0.0
    stalled_s: float = 0.0


def total(parts: Iterable[Statistics]) -> Statistics:
    """Return what several rings of one copier have done together."""
    found = tuple(parts)
    names = [field.name for field in attrs.fields(Statistics) if field.name != "stalled_s"]
    sums = {name: sum(getattr(part, name) for part in found) for name in names}
    return Statistics(**sums, stalled_s=max((part.stalled_s for part in found), default=0.0))


class Ring:
    """Blocks of equal shapes and dtypes that share a few device buffers."""

    def __init__(self, members: Sequence[Member], slots: Sequence[Slot], turns: Turns, copier: Copier) -> None:
        self.turns = turns
        self._members, self._slots, self._copier = tuple(members), tuple(slots), copier
        self._copies = self._unforeseen = 0
        self._waited_s = 0.0

    @property
    def copies(self) -> int:
        """How many blocks have been copied to the device so far."""
        return self._copies

    @property
    def statistics(self) -> Statistics:
        """What has happened so far."""
        trained = [member for member in self._members if isinstance(member, TrainedMember)]
        return Statistics(
            blocks=len(self._members),
            slots=len(self._slots),
            copies=self._copies,
            copied_bytes=self._copies * len(self._members[0].master.flat),
            unforeseen=self._unforeseen,
            returned=sum(member.returned for member in trained),
            late=sum(member.late for member in trained),
            waited_s=self._waited_s,
            stalled_s=self._copier.stalled_s() if isinstance(self._copier, Timed) else 0.0,
        )

    def acquire(self, rank: int) -> None:
        """Have the block's weights on the device for the computation that follows, whoever was expected instead."""
        self._unforeseen += self.load(rank)
        began = time.perf_counter()
        self._slot(rank).acquire(self._members[rank], self._copier)
        self._waited_s += time.perf_counter() - began

    def load(self, rank: int) -> bool:
        """Begin to copy the block into its slot unless it is there, and tell whether it was not."""
        copied = self._slot(rank).load(self._members[rank], self._copier)
        self._copies += copied
        return copied

    def load_first(self) -> None:
        """Load what a forward begins with."""
        for rank in self.turns.first():
            self.load(rank)

    def used(self, rank: int) -> None:
        """Load what follows in forward; inside backward, where a forward is only computed again, do nothing."""
        if in_backward():
            return
        # Trained weights are not loaded long before they are used: somebody might change them in between.
        again = not torch.is_grad_enabled() and not isinstance(self._members[rank], TrainedMember)
        self._follow(rank, self.turns.after_forward(rank, again=again))

    def differentiated(self, rank: int) -> None:
        """Begin to copy back what was trained, and load what follows in backward."""
        member, slot = self._members[rank], self._slot(rank)
        if isinstance(member, TrainedMember) and slot.holds(member):
            member.give_back(slot.packed)
        self._follow(rank, self.turns.after_backward(rank))

    def close(self) -> None:
        """Give every tensor its bytes back, on the device it came from."""
        for member, slot in ((m, self._slot(rank)) for rank, m in enumerate(self._members)):
            if slot.holds(member):
                slot.free()
        for member in self._members:
            member.restore()

    def _follow(self, rank: int, followers: Iterable[int]) -> None:
        self._slot(rank).rest(self._members[rank])
        for follower in followers:
            # In an order that nobody foresaw, the place may be that of a block that is computing right now.
            if self._slot(follower).free_for(self._members[follower]):
                self.load(follower)

    def _slot(self, rank: int) -> Slot:
        return self._slots[self.turns.slot(rank)]
