"""Units of a model (its blocks) on the host, and the rings in which they reach the device."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor

from musubi.memory.arena import Arena, CudaRegistrar, Registrar
from musubi.memory.copiers import Copier, CudaCopier, HostCopier, ReturningCopier, StagedCopier
from musubi.memory.rotation import Ring, total
from musubi.memory.schedule import Schedule
from musubi.memory.slots import Member, SlotPool
from musubi.memory.trained_member import TrainedMember

logger = logging.getLogger(__name__)


class Streams:
    """The host's copies of units (lists of tensors), one copier for all of them, and the slots that they share.

    What has to be undone, and one line about what happened, is pushed onto ``stack``.
    """

    def __init__(
        self,
        units: Sequence[Sequence[Tensor]],
        stack: ExitStack,
        *,
        device: torch.device,
        copier: Copier | None = None,
        write_back: bool = False,
        registrar: Registrar | None = None,
    ) -> None:
        homes = [[tensor.device for tensor in unit] for unit in units]
        if registrar is None and device.type == "cuda":
            registrar = CudaRegistrar(device)
        # Trained weights must not be written into memory that others see, nor over small ones that lie in between.
        self.arena = Arena(units, registrar=registrar, adopt=not write_back)
        stack.callback(self.arena.close)
        self._copier = copier or _copier(device, self.arena)
        stack.callback(self._copier.close)
        self._pool, self._write_back, self._device = SlotPool(device), write_back, device
        self._units = [self._member(unit, n, homes[n]) for n, unit in enumerate(units)]
        self._rings: list[Ring] = []
        self._stack = stack
        stack.callback(self._log)

    @property
    def slot_bytes(self) -> int:
        """How much of the device's memory the slots take."""
        return self._pool.nbytes

    def rings(self, units: Iterable[int], *, slots: int, use: Hashable = None) -> tuple[Schedule, tuple[Ring, ...]]:
        """Return the schedule of some units, given in execution order, and a ring for each of their layouts.

        Rings of one ``use`` share slots with those of an earlier call.
        """
        members = [self._units[unit] for unit in units]
        layouts = [member.master.packing for member in members]
        schedule = Schedule.of(layouts, slots=slots, lag=int(self._write_back))
        rings = [self._ring([members[i] for i in schedule.members(n)], n, schedule, use) for n in schedule.numbers]
        return schedule, tuple(rings)

    def _ring(self, members: Sequence[Member], number: int, schedule: Schedule, use: Hashable) -> Ring:
        turns = schedule.rings[number]
        shared = [self._pool.slot(members[0].master.packing, (use, index)) for index in range(turns.slots)]
        ring = Ring(members, shared, turns, self._copier)
        self._stack.callback(ring.close)
        self._rings.append(ring)
        return ring

    def _member(self, unit: Sequence[Tensor], number: int, homes: Sequence[torch.device]) -> Member:
        master = self.arena.masters[number]
        if not any(tensor.requires_grad for tensor in unit):
            return Member(unit, master, homes)
        assert isinstance(self._copier, ReturningCopier), "writing back takes copy_back and settle"
        return TrainedMember(unit, master, homes, device=self._device, copier=self._copier)

    def _log(self) -> None:
        if not self._rings:
            return
        done = total(ring.statistics for ring in self._rings)
        logger.info(
            "swapped %d blocks through %d slots: %d copies of %.1f GiB together, %d unforeseen, %d copied back, "
            "%.2f s waited by the processor and %.2f s by the device",
            done.blocks,
            done.slots,
            done.copies,
            done.copied_bytes / (1 << 30),
            done.unforeseen,
            done.returned,
            done.waited_s,
            done.stalled_s,
        )


def _copier(device: torch.device, arena: Arena) -> Copier:
    """Return what copies between an arena and a device, in the way that the arena's memory allows."""
    if device.type != "cuda":
        return HostCopier()
    if arena.pinned or not arena.masters:
        return CudaCopier(device)
    return StagedCopier(CudaCopier(device), max(len(master.flat) for master in arena.masters))
