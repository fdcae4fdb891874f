"""What a build has to do: which outputs each item needs, which of them are there, and which are to be made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import attrs

from musubi.architecture import Architecture, Stage
from musubi.cache.building.identity import Identities, files_of
from musubi.cache.building.jobs import Job, alternatives, media_of, stages_of, suffix_of
from musubi.cache.building.masks import MASK
from musubi.cache.building.memory import FileMemory
from musubi.cache.building.stored import Stored, folded
from musubi.cache.records import Output
from musubi.core.errors import DataError, Issue
from musubi.data.sample import Item

Needs = Mapping[str, tuple[str, ...]]
"""The fingerprints of an item's outputs by stage: the alternatives of which a draw takes one."""


@attrs.frozen(kw_only=True)
class Plan:
    """What a build has to do.

    Args:
        items: The items, but for those whose files cannot be read.
        needs: What each needs, by its name.
        stages: Those that have jobs, in the order in which they are run.
        jobs: What the manifest does not list, or lists and is gone, by fingerprint.
        outputs: Outputs of jobs that lie there all the same: an earlier build was killed before it listed them. They
            are jobs still, so that jobs are grouped into the same batches whether or not that happened.
    """

    items: tuple[Item, ...]
    needs: Mapping[str, Needs]
    stages: tuple[Stage, ...]
    jobs: Mapping[str, Job]
    outputs: Mapping[str, Output]

    @property
    def missing(self) -> tuple[Job, ...]:
        """The jobs whose outputs are to be made."""
        return tuple(job for print_, job in self.jobs.items() if print_ not in self.outputs)

    def users(self) -> Mapping[str, frozenset[str]]:
        """Return the names of the items that need each job."""
        users: dict[str, set[str]] = {fingerprint: set() for fingerprint in self.jobs}
        for name, needs in self.needs.items() if users else ():
            for fingerprint in {print_ for prints in needs.values() for print_ in prints} & users.keys():
                users[fingerprint].add(name)
        return {fingerprint: frozenset(names) for fingerprint, names in users.items()}


@attrs.define(kw_only=True)
class Planner:
    """Work out what the items of a dataset need; ``report`` hears of those that cannot be used."""

    model: Architecture
    identities: Identities
    memory: FileMemory
    stored: Stored
    report: Callable[[Issue], None]
    _taken: dict[str, str] = attrs.field(factory=dict, init=False)

    def plan(self, items: Iterable[Item]) -> Plan:
        """Return what the items need; an item whose files cannot be read is reported and left out."""
        kept: list[Item] = []
        needs: dict[str, Needs] = {}
        jobs: dict[str, Job] = {}
        for item in items:
            try:
                needs[item.name] = self._needed(item, jobs)
            except DataError as error:
                for issue in error.issues:
                    self.report(issue)
                continue
            kept.append(item)
        outputs = {output.fingerprint: output for output in self.stored.found(jobs.values())}
        named = {print_: job if print_ in outputs else self._named(job) for print_, job in jobs.items()}
        busy = {job.stage for job in jobs.values()}
        stages = tuple(stage for stage in (*self.model.stages, MASK) if stage in busy)
        return Plan(items=tuple(kept), needs=needs, stages=stages, jobs=named, outputs=outputs)

    def _needed(self, item: Item, jobs: dict[str, Job]) -> Needs:
        """Return an item's needs; those that are not there are added to ``jobs``."""
        needs: dict[str, tuple[str, ...]] = {}
        fresh: dict[str, Job] = {}
        for stage in stages_of(self.model, item):
            captions = alternatives(stage, item)
            needs[stage.name] = tuple(self.identities.of(stage, item, caption) for caption in captions)
            for number, (caption, print_) in enumerate(zip(captions, needs[stage.name], strict=True)):
                if not (print_ in jobs or print_ in fresh or self.stored.has(print_)):
                    fresh[print_] = self._job(stage, item, number, caption, print_)
        jobs |= fresh
        return needs

    def _job(self, stage: Stage, item: Item, number: int, caption: str | None, fingerprint: str) -> Job:
        return Job(
            stage=stage,
            item=item,
            caption=caption,
            fingerprint=fingerprint,
            name=f"{item.name}, caption {number + 1}" if number else item.name,
            media=media_of(stage, item, number, fingerprint),
            suffix=suffix_of(stage, self.model),
            sources=tuple((path, self.memory.stamp(path)) for path in files_of(stage, item)),
        )

    def _named(self, job: Job) -> Job:
        """Return a job whose files overwrite none of others, not even those that are not needed at the moment."""
        for named in (job, job.renamed(job.fingerprint[:8]), job.renamed(job.fingerprint)):
            if all(self._is_free(name, job.fingerprint) for name in _claims(named)):
                break
        self._taken |= {folded(name): job.fingerprint for name in _claims(named)}
        return named

    def _is_free(self, name: str, fingerprint: str) -> bool:
        return self._taken.get(folded(name), fingerprint) == fingerprint and self.stored.is_free(name, fingerprint)


def plan_items(
    items: Sequence[Item],
    *,
    model: Architecture,
    components: Mapping[str, str],
    dtype: str,
    memory: FileMemory,
    stored: Stored,
    report: Callable[[Issue], None],
    progress: bool = False,
) -> Plan:
    """Return what items need of a cache whose encoders are ``components`` and run in ``dtype``; nothing is encoded."""
    identities = Identities(model=model, components=components, dtype=dtype, memory=memory)
    read = (path for item in items for stage in stages_of(model, item) for path in files_of(stage, item))
    memory.learn(read, progress=progress)
    return Planner(model=model, identities=identities, memory=memory, stored=stored, report=report).plan(items)


def _claims(job: Job) -> tuple[str, str]:
    """Return names that stand for all that a job may use: that of a single file, and that of the first of several."""
    return job.file_names(1)[0], job.file_names(2)[0]
