"""Optimisers that set their learning rate themselves leave nothing for a schedule to do."""

from __future__ import annotations

from musubi.core.errors import Issue
from musubi.optim.optimizers import Optimizer
from musubi.optim.schedules import Constant, Schedule


def schedule_issue(optimizer: Optimizer, schedule: Schedule) -> Issue | None:
    """Return what is wrong with a schedule for an optimiser, None if nothing."""
    if not optimizer.own_schedule or (isinstance(schedule, Constant) and not schedule.warmup):
        return None
    message = f"{optimizer.kind} sets its learning rate itself, so {schedule.kind} would have no effect"
    return Issue("schedule", message, "leave the schedule out, or take an optimiser that follows one")
