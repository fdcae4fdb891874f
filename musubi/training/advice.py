"""What to do when a device has no memory left, with what it would save."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from musubi.core.errors import ConfigError
from musubi.memory.block_swap import BlockSwap
from musubi.memory.checkpointing import GradientCheckpointing
from musubi.memory.plan import GIB, Row
from musubi.memory.policy import MemoryPolicy, Phase
from musubi.memory.quantise import FP8Scaled

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
            f"for bucket {bucket} GradientCheckpointing(), FP8Scaled(), BlockSwap(blocks=...), a smaller batch or a "
            "smaller resolution would help; trainer.plan() says how much"
        )


def _advice(trainer: Trainer[Architecture], bucket: str) -> str:
    now = _row(trainer, bucket)
    steps = [f"{measure}: {_size(total)}" for measure, total in _measures(trainer, bucket, now)]
    expected = f"plan() expects {_size(now.total)} for bucket {bucket} and more for what it does not count"
    if not steps:
        return f"{expected}; all that saves memory is in use: take a smaller resolution or fewer frames"
    return f"{expected}; with {', then '.join(steps)}"


def _measures(trainer: Trainer[Architecture], bucket: str, row: Row) -> Iterator[tuple[str, int]]:
    """Yield each measure that would help, and the need once it and those before it are taken."""
    for policy in _policies(trainer):
        try:
            changed = trainer.with_memory(*(kept for kept in trainer.memory if type(kept) is not type(policy)), policy)
            better = _row(changed, bucket)
        except ConfigError:  # does not fit this model, or what else is in use
            continue
        if better.total < row.total:
            trainer, row = changed, better
            yield _written(policy), row.total
    batch = max(item.item.batch_size for item in trainer.cache.items() if item.item.bucket_label == bucket)
    if batch > 1:
        smaller = row.total - row.activations * (batch - batch // 2) // batch
        yield f"dataset.with_batch_size({batch // 2})", smaller


def _policies(trainer: Trainer[Architecture]) -> Iterator[MemoryPolicy]:
    """Yield what may be added or strengthened, the cheapest first."""
    yield GradientCheckpointing()
    if all(policy.phase != Phase.QUANTISE for policy in trainer.memory):
        yield FP8Scaled()
    blocks = trainer.model.layout.count or 0
    swapped = max((policy.blocks for policy in trainer.memory if isinstance(policy, BlockSwap)), default=0)
    for more in sorted({(blocks + swapped) // 2, blocks - 1}):
        if more > swapped:
            yield BlockSwap(blocks=more)


def _row(trainer: Trainer[Architecture], bucket: str) -> Row:
    return next(row for row in trainer.plan().rows if row.bucket == bucket)


def _written(policy: MemoryPolicy) -> str:
    """Return a policy as one would write it."""
    fields = [field for field in attrs.fields(type(policy)) if getattr(policy, field.name) != field.default]
    return f"{type(policy).__name__}({', '.join(f'{f.name}={getattr(policy, f.name)!r}' for f in fields)})"


def _size(value: int) -> str:
    return f"{value / GIB:.1f} GiB" if value >= GIB // 10 else f"{value / (1 << 20):.2g} MiB"
