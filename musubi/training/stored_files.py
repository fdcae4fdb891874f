"""What a run leaves on the disk, foreseen."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from musubi.memory.plan import Disk
from musubi.training.counting import total_steps

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.training.trainer import Trainer

_PICTURE, _CLIP = 1.5, 0.1
"""Bytes of a pixel in a PNG and in a frame of an MP4, as samples come out; an assumption."""


def places(trainer: Trainer[Architecture], *, file: int, state: int) -> Disk:
    """Return the files, states and samples that are there once the run is over, and the cache, in bytes.

    Args:
        trainer: The trainer.
        file: Bytes of one file of what is trained.
        state: Bytes of one state to resume from.
    """
    batches = _batches(trainer)
    total = trainer.steps or trainer.usual_steps
    if trainer.epochs is not None:
        total = total_steps(trainer.epochs, batches, accumulate=trainer.accumulate, processes=1)
    epoch = max(1, batches // trainer.accumulate)
    files = _written(total, trainer.save_every, trainer.save_every_epochs, epoch, trainer.keep_last)
    keep = trainer.keep_last_states or trainer.keep_last
    rounds = _written(total, trainer.sample_every, trainer.sample_every_epochs, epoch, None) + 1
    return Disk(
        file=file,
        files=files + (trainer.validation is not None),
        state=state,
        states=_written(total, trainer.state_every, trainer.state_every_epochs, epoch, keep),
        cache=trainer.cache.manifest().bytes + (trainer.prior.cache.manifest().bytes if trainer.prior else 0),
        samples=round(rounds * _samples(trainer)),
    )


def _batches(trainer: Trainer[Architecture]) -> int:
    """Return about how many batches an epoch has."""
    items: Counter[tuple[str, int]] = Counter()
    for cached in trainer.cache.items():
        if cached.item.split == "train":
            items[cached.item.bucket_label, cached.item.batch_size] += cached.item.repeats
    return max(1, sum(-(-count // size) for (_, size), count in items.items()))


def _written(total: int, every: int | None, every_epochs: int | None, epoch: int, keep: int | None) -> int:
    """Return how many files there are in the end: those on the way that stay, and the last one."""
    by_steps = (total - 1) // every if every else 0
    by_epochs = (total - 1) // (every_epochs * epoch) if every_epochs else 0
    kept = [count if keep is None else min(count, keep) for count in (by_steps, by_epochs)]
    return sum(kept) + 1


def _samples(trainer: Trainer[Architecture]) -> float:
    """Return the bytes of one round of samples."""
    kinds = Counter((cached.item.bucket, cached.item.window.count) for cached in trainer.cache.items())
    (usual, usual_frames), _ = kinds.most_common(1)[0]
    total = 0.0
    for request in trainer.samples:
        (width, height), frames = request.size or usual, request.frames or usual_frames
        total += width * height * (_PICTURE if frames == 1 else frames * _CLIP)
    return total
