"""What to do when a device has no memory left, with what it would save."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import ConfigError
from musubi.memory.block_swap import BlockSwap
from musubi.memory.budget import size
from musubi.memory.checkpointing import GradientCheckpointing
from musubi.memory.device import pick_device
from musubi.memory.forecast import Forecast
from musubi.memory.need import Row
from musubi.memory.policy import MemoryPolicy, Phase
from musubi.memory.quantise import Int8Scaled
from musubi.memory.resolve import call
from musubi.training.planning import subject_of

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.training.trainer import Trainer

logger = logging.getLogger(__name__)


def memory_advice(trainer: Trainer[Architecture], bucket: str) -> str:
    """Return one line: what ``plan()`` expects of a bucket, and with each further measure, the cheapest first.

    Measures that the trainer has taken, or that do not fit its model, are left out. Never raises: where no plan can be
    made the line says in general what helps.

    Args:
        trainer: What ran out of memory.
        bucket: In which bucket, e.g. ``832x480x81``.
    """
    try:
        return _advice(trainer, bucket)
    except Exception:  # the error at hand must not be hidden by one about its advice
        logger.debug("no plan for bucket %s", bucket, exc_info=True)
        return (
            f"for bucket {bucket} GradientCheckpointing(), Int8Scaled(), BlockSwap(blocks=...), a smaller batch or a "
            "smaller resolution would help; trainer.plan() says how much"
        )


def _advice(trainer: Trainer[Architecture], bucket: str) -> str:
    device = pick_device(trainer.device)
    subject = subject_of(trainer, device, accelerated=device.type != "cpu")
    only = next(planned for planned in subject.buckets if planned.name in {bucket, f"prior {bucket}"})
    forecast = Forecast(attrs.evolve(subject, buckets=(only,)))
    (now,) = forecast.rows(trainer.memory)
    steps = [f"{measure}: {size(total)}" for measure, total in _measures(trainer, forecast, now)]
    expected = f"plan() expects {size(now.total)} for bucket {bucket} and more for what it does not count"
    if not steps:
        return f"{expected}; all that saves memory is in use: take a smaller resolution or fewer frames"
    return f"{expected}; with {', then '.join(steps)}"


def _measures(trainer: Trainer[Architecture], forecast: Forecast, row: Row) -> Iterator[tuple[str, int]]:
    """Yield each measure that would help, and the need once it and those before it are taken."""
    memory = trainer.memory
    for policy in _policies(memory, forecast.subject.context.blocks or 0):
        changed = (*(kept for kept in memory if type(kept) is not type(policy)), policy)
        try:
            (better,) = forecast.rows(changed)
        except ConfigError:  # does not fit this model, or what else is in use
            continue
        if better.total < row.total:
            memory, row = changed, better
            yield call(policy), row.total
    sizes = [item.item.batch_size for item in trainer.cache.items() if item.item.bucket_label == row.bucket]
    batch = max(sizes, default=1)
    if batch > 1:
        smaller = row.total - row.activations * (batch - batch // 2) // batch
        yield f"dataset.with_batch_size({batch // 2})", smaller


def _policies(memory: Sequence[MemoryPolicy], blocks: int) -> Iterator[MemoryPolicy]:
    """Yield what may be added or strengthened, the cheapest first."""
    yield GradientCheckpointing()
    if all(policy.phase != Phase.QUANTISE for policy in memory):
        yield Int8Scaled()
    known = [policy.blocks for policy in memory if isinstance(policy, BlockSwap)]
    swapped = max((number for number in known if isinstance(number, int)), default=0)
    for more in sorted({(blocks + swapped) // 2, blocks - 1}):
        if more > swapped:
            yield BlockSwap(blocks=more)
