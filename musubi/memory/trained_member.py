"""A streamed block that is trained: what backward changes in its slot goes back to the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from musubi.memory.copiers import ReturningCopier
from musubi.memory.packing import Packed
from musubi.memory.slots import Member


class TrainedMember(Member):
    """Follow the changes of a block's tensors, and copy the block back before its slot is another's.

    A change is noticed by the version that autograd counts, and by a hook on the gradient for optimisers that write
    around it. An optimiser that updates in a hook of its own does so after ours, as it is registered later.

    A gradient may come when the block has left its slot already, say because a weight is used outside the block as
    well. Then the parameter gets a copy of its own on the device, which the optimiser updates and which is put back
    among the others on the host before the block is needed again.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        master: Packed,
        homes: Sequence[torch.device],
        *,
        device: torch.device,
        copier: ReturningCopier,
    ) -> None:
        super().__init__(tensors, master, homes)
        self.late = self.returned = 0
        self._device, self._copier = device, copier
        self._trained = [i for i, tensor in enumerate(tensors) if tensor.requires_grad]
        self._strays: set[int] = set()
        self._updates = 0
        self._same_at = self._version
        self._returning: tuple[object, int] | None = None
        self._handles = [self._listen(i) for i in self._trained]

    @property
    def stale(self) -> bool:
        return not self.bound and self._version != self._same_at

    def settle(self) -> None:
        self._collect()
        self._same_at = self._version

    def give_back(self, slot: Packed) -> None:
        """Begin to copy the block to the host if it has changed, so that it need not wait for that when it leaves."""
        changed = self.bound and self._version != self._same_at
        if changed and (self._returning is None or self._returning[1] != self._version):
            ticket = self._copier.copy_back(self.master.flat, slot.flat)
            self._returning = ticket, self._version
            self.returned += 1

    def leave(self, slot: Packed) -> None:
        self.give_back(slot)
        if self._returning is not None:
            # The tensors are to lead to true numbers at any moment, whoever reads them: wait for the copy.
            self._copier.settle(self._returning[0])
            self._returning = None
        super().leave(slot)

    def restore(self) -> None:
        self._collect()
        for handle in self._handles:
            handle.remove()
        super().restore()

    def _collect(self) -> None:
        """Put what was updated late among the others on the host."""
        for index in self._strays:
            view = self.master.views[index]
            view.copy_(self.tensors[index].data)
            self.tensors[index].data = view
        self._strays.clear()

    @property
    def _version(self) -> int:
        return self._updates + sum(self.tensors[i]._version for i in self._trained)

    def _listen(self, index: int) -> RemovableHandle:
        def changing(_: Tensor) -> None:
            self._updates += 1
            if not self.bound and index not in self._strays:
                self.tensors[index].data = self.master.views[index].to(self._device, copy=True)
                self._strays.add(index)
                self.late += 1

        handle: RemovableHandle = self.tensors[index].register_post_accumulate_grad_hook(changing)
        return handle
