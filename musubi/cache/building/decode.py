"""What a stage reads of its items, decoded by several threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

import attrs

from musubi.architecture import Stage
from musubi.batch import Sample
from musubi.cache.building.jobs import Job
from musubi.cache.building.memory import stamp_of
from musubi.core.errors import DataError, Issue, shown
from musubi.data.media.loading import Samples, load_originals
from musubi.data.sample import Item


@attrs.frozen
class Failed:
    """Why a job's output could not be made."""

    issues: tuple[Issue, ...]


class Decoder:
    """Decode the items of a stage's jobs, best in their order: windows of one clip are then read in one pass.

    Different threads may call it at a time; those that want something of the same file wait for one another.
    """

    def __init__(self, stage: Stage, jobs: Sequence[Job]) -> None:
        reads = stage.reads
        self._fitted, self._originals = bool({"pixels", "controls", "mask"} & set(reads)), "originals" in reads
        items = [job.item for job in jobs] if self._fitted else []
        self._samples = Samples(items, pixels="pixels" in reads, controls="controls" in reads, mask="mask" in reads)
        uses = Counter(item.path for item in items)
        self._locks = {path: Lock() for path, count in uses.items() if count > 1}

    def __call__(self, job: Job) -> Sample | Failed:
        """Return what the stage reads of a job's item, or why it cannot be read."""
        if not self._fitted and not self._originals:
            return Sample(name=job.name, caption=job.caption or "")
        try:
            with self._alone(job):
                sample = self._loaded(job.item)
            _check_unchanged(job)
        except DataError as error:
            return Failed(error.issues)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return too_large(job, "take a smaller resolution or fewer frames, or scale the file down")
        return attrs.evolve(sample, name=job.name, caption=job.caption or "")

    def _loaded(self, item: Item) -> Sample:
        """Return what is read of an item's files."""
        sample = self._samples.load(item) if self._fitted else Sample(name=item.name)
        return attrs.evolve(sample, controls=load_originals(item)) if self._originals else sample

    def _alone(self, job: Job) -> AbstractContextManager[object]:
        return self._locks.get(job.item.path) or nullcontext()


def is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Return whether an error says that there is no more memory: torch has a kind of its own for CUDA alone."""
    words = str(error).lower()
    return not isinstance(error, RuntimeError) or "out of memory" in words or "defaultcpuallocator" in words


def too_large(job: Job, hint: str) -> Failed:
    """Return that an item did not fit into memory."""
    return Failed((Issue(shown(job.item.path), "needs more memory than there is", hint),))


def _check_unchanged(job: Job) -> None:
    """Refuse a file that is not any more what its fingerprint says."""
    for path, stamp in job.sources:
        if stamp_of(path) != stamp:
            raise DataError(
                "cannot encode", [Issue(shown(path), "was changed while the cache was built", "build again")]
            )
