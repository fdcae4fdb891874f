"""Deciding what a trainer's memory policies leave open, before its run loads anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from musubi.memory.forecast import Forecast
from musubi.memory.hardware import Hardware
from musubi.memory.policy import MemoryPolicy
from musubi.memory.resolve import is_open, resolved
from musubi.training.fitting import fit_context
from musubi.training.planning import others, subject_of
from musubi.training.processes import Processes

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.training.state import RunState
    from musubi.training.trainer import Trainer


def settled(trainer: Trainer[Architecture], processes: Processes, resumed: RunState | None) -> Trainer[Architecture]:
    """Return a trainer with what its memory policies leave open decided; as it is if nothing is.

    All processes decide alike, by the least memory that any of them has. A run that is gone on with keeps the weights
    that it began with: what changes them is chosen as before, everything else anew.

    Raises:
        ConfigError: There is no budget, or nothing fits it.
    """
    known = attrs.evolve(fit_context(trainer), blocks=trainer.model.layout.count or 2)
    if not any(is_open(policy, known) for policy in trainer.memory):
        return trainer
    memory = _memory(processes)
    return processes.every(lambda: _decided(trainer, processes, memory, resumed))


def _decided(
    trainer: Trainer[Architecture], processes: Processes, memory: int | None, resumed: RunState | None
) -> Trainer[Architecture]:
    subject = subject_of(trainer, processes.device, accelerated=processes.device.type != "cpu")

    def allowed(policies: Sequence[MemoryPolicy]) -> bool:
        changing = [policy.to_dict() for policy in policies if policy.changes_weights]
        return resumed is None or changing == list(resumed.settings.get("weights_changed_by", ()))

    forecast, told = Forecast(subject), others(trainer, subject)

    def peak(policies: Sequence[MemoryPolicy]) -> int:
        return max(forecast.peak(policies), *(other.device for other in told(policies) if other.chosen), 0)

    return trainer.with_memory(*resolved(trainer.memory, subject.context, peak, memory=memory, allowed=allowed))


def _memory(processes: Processes) -> int | None:
    """Return the least free memory of any process's device, None if one does not know."""
    card = Hardware.here(processes.device)
    found = processes.share(lambda: None if card is None else card.memory)
    known = [memory for memory in found if memory is not None]
    return min(known) if len(known) == len(found) else None
