"""Which jobs are encoded together: fixed groups of equal shapes."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from musubi.cache.building.jobs import Job

_PIXELS = 2**20
"""As many pixels as are encoded at once, unless a single item has more: those of a still of 1024 x 1024."""

_JOBS = 16


@attrs.frozen(kw_only=True)
class JobBatch:
    """Jobs of equal shapes; ``number`` counts the batches of a stage."""

    number: int
    jobs: tuple[Job, ...]

    @property
    def bytes(self) -> int:
        """What its decoded pictures and clips take."""
        return 3 * sum(job.pixels for job in self.jobs)


def batches_of(jobs: Iterable[Job]) -> tuple[JobBatch, ...]:
    """Group jobs of equal shapes, in the order of the first of each; equal jobs always give equal batches.

    What an encoder makes of a picture may depend on its neighbours in the batch by float rounding.
    """
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.shape, []).append(job)
    chunks = [chunk for group in groups.values() for chunk in _chunks(group)]
    return tuple(JobBatch(number=number, jobs=chunk) for number, chunk in enumerate(chunks))


def _chunks(group: list[Job]) -> list[tuple[Job, ...]]:
    size = max(1, min(_JOBS, _PIXELS // max(1, group[0].pixels)))
    return [tuple(group[i : i + size]) for i in range(0, len(group), size)]
