"""Device buffers that streamed blocks take turns in, and the blocks themselves."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from musubi.memory.copiers import Copier
from musubi.memory.packing import ALIGNMENT, Packed, Packing


class Member:
    """One streamed block: its tensors, where their bytes are on the host, and the devices that they came from.

    Wherever its bytes are, the tensors lead there: into a slot from ``bind`` to ``leave``, else to the host. So what is
    used unasked is found on the wrong device instead of holding another block's numbers.
    """

    def __init__(self, tensors: Sequence[Tensor], master: Packed, homes: Sequence[torch.device]) -> None:
        self.tensors, self.master, self._homes = tuple(tensors), master, tuple(homes)
        self.bound = False

    def bind(self, slot: Packed) -> None:
        """Lead the tensors into a slot, whose copy has been waited for."""
        self._lead_to(slot)
        self.bound = True

    def leave(self, slot: Packed) -> None:
        """Lead the tensors back to the host, before another block takes the slot."""
        if self.bound:
            self._lead_to(self.master)
        self.bound = False

    def settle(self) -> None:
        """Make sure that the host has the block as it is now, for it is about to be copied into a slot."""

    @property
    def stale(self) -> bool:
        """Whether the tensors have other numbers than the slot that was loaded for them."""
        return False

    def restore(self) -> None:
        """Let the tensors be where they came from."""
        for tensor, view, home in zip(self.tensors, self.master.views, self._homes, strict=True):
            tensor.data = view.to(home)
        self.bound = False

    def _lead_to(self, packed: Packed) -> None:
        # `.data` and not a new Parameter: identity, hooks and autograd's version counters stay as they are.
        for tensor, view in zip(self.tensors, packed.views, strict=True):
            tensor.data = view


class Slot:
    """A device buffer, which block is in it, the ticket of its copy, and whether it is computing."""

    def __init__(self, packing: Packing, device: torch.device) -> None:
        # Not from the buffer's first byte: a compiled block whose shapes may vary would take an offset of 0 for a
        # number of its own kind and be compiled again for it (found by OneTrainer).
        buffer = torch.empty(ALIGNMENT + packing.size, dtype=torch.uint8, device=device)
        self.packed = Packed.of(buffer[ALIGNMENT:], packing)
        self._holder: Member | None = None
        self._ticket: object = None
        self._busy = False

    @property
    def nbytes(self) -> int:
        """How much of the device's memory it takes."""
        return self.packed.flat.untyped_storage().nbytes()

    def load(self, member: Member, copier: Copier) -> bool:
        """Begin to copy a block unless it is there, in the place of another; tell whether that was needed."""
        if self._holder is member and not member.stale:
            return False
        self.free()
        member.settle()
        self._ticket = copier.copy(self.packed.flat, member.master.flat)
        self._holder = member
        return True

    def acquire(self, member: Member, copier: Copier) -> None:
        """Have a loaded block ready for the computation that follows."""
        assert self._holder is member, "it is loaded first"
        copier.wait(self._ticket)
        if not member.bound:
            member.bind(self.packed)
        self._busy = True

    def rest(self, member: Member) -> None:
        """Hear that a block has been used, so that others may be loaded in its place before they are needed."""
        if self._holder is member:
            self._busy = False

    def free_for(self, member: Member) -> bool:
        """Tell whether a block may be loaded that is not needed yet: not while another computes here."""
        return self._holder is member or not self._busy

    def holds(self, member: Member) -> bool:
        """Tell whether a block is here, bound or on its way."""
        return self._holder is member

    def free(self) -> None:
        """Send the block that is here back to the host."""
        holder, self._holder, self._busy = self._holder, None, False
        if holder is not None:
            holder.leave(self.packed)


class SlotPool:
    """The slots of all rings of a device, by what they are for: rings that ask for the same share it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._slots: dict[Hashable, Slot] = {}

    @property
    def nbytes(self) -> int:
        """How much of the device's memory all slots take."""
        return sum(slot.nbytes for slot in self._slots.values())

    def slot(self, packing: Packing, use: Hashable) -> Slot:
        """Return the one slot for a use and a packing."""
        key = packing, use
        if key not in self._slots:
            self._slots[key] = Slot(packing, self.device)
        return self._slots[key]
