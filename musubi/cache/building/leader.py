"""What one process does for all that share a build: look, lock and plan before the work, and the manifest after it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from musubi.architecture import Architecture, Codec
from musubi.cache import manifest as manifests
from musubi.cache import writing
from musubi.cache.building.dtypes import EncoderDtype, encoder_dtype
from musubi.cache.building.garbage import settled
from musubi.cache.building.identity import encoders
from musubi.cache.building.lock import locked
from musubi.cache.building.masks import MASK
from musubi.cache.building.memory import FileMemory
from musubi.cache.building.plan import Plan, plan_items
from musubi.cache.building.policies import Acting, acting, identities, told
from musubi.cache.building.stored import Stored
from musubi.cache.building.survey import Survey, survey
from musubi.cache.building.told import Teller
from musubi.cache.records import CachedItem, Output, Plain, issue_line, item_line, output_line
from musubi.core.control import CancelToken
from musubi.core.errors import CacheError, DataError, Issue, shown
from musubi.data.dataset import Dataset
from musubi.data.sample import Item
from musubi.memory.policy import MemoryPolicy

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Work:
    """What is to be done, as the first process found out and all need to know; ``users`` are the items of each job."""

    plan: Plan
    dtype: str
    acting: Acting
    users: Mapping[str, frozenset[str]]
    problems: tuple[Issue, ...]


@attrs.define(kw_only=True)
class Leader:
    """The first process of a build, from its look at the files to the manifest."""

    folder: Path
    model: Architecture
    codec: Codec
    datasets: Sequence[Dataset]
    device: str
    dtype: EncoderDtype | None
    memory: Sequence[MemoryPolicy] | None
    strict: bool
    tell: Teller
    cancel: CancelToken
    progress: bool
    _before: Plain | None = attrs.field(default=None, init=False)
    _stored: Stored = attrs.field(init=False)
    _survey: Survey = attrs.field(init=False)

    @settled()
    def prepare(self, stack: ExitStack) -> Work | None:
        """Look, wait for other builds to end, and plan; None if cancelled while waiting. ``stack`` holds the lock.

        Raises:
            DataError: Nothing can be used, or, if ``strict``, not everything.
            CacheError: The folder holds the cache of another architecture, or cannot be written.
            ConfigError: The cache was built with memory policies that are not known here.
            WeightsError: An encoder's files cannot be read: what they are is part of an entry's identity.
        """
        memory = FileMemory(self.folder)
        self._check_owner(manifests.architecture_of(self.folder))  # this and the next before hours are spent on looking
        components = encoders(self.model, self.codec)
        self._survey = survey(self.datasets, self.model, memory=memory, on=self.tell.on, progress=self.progress)
        self.tell.left_out(self._survey.problems)
        self.tell.notes(self._survey.notes)
        writing.make_folder(self.folder)
        if not stack.enter_context(locked(self.folder, tell=self.tell.warn, cancel=self.cancel)):
            return None
        writing.sweep(self.folder)
        self._before = self._earlier()
        memory.reload()
        return self._planned(memory, components)

    @settled()
    def finish(self, work: Work, outputs: Mapping[str, Output], failed: Collection[str], problems: list[Issue]) -> None:
        """Write the manifest of all items but those that ``failed``, by name, if it is another than before.

        Raises:
            DataError: Nothing can be used, or, if ``strict``, not everything.
        """
        complete = [item for item in work.plan.items if item.name not in failed]
        if not complete:
            raise DataError("no item can be used", problems)
        self._insist(problems)
        values = self._values(work, complete, outputs, problems)
        if values != self._before:
            manifests.save_plain(self.folder, values)
        logger.info("%s: %d items, %d left out", shown(self.folder), len(complete), len(problems))

    def _planned(self, memory: FileMemory, components: Mapping[str, str]) -> Work:
        known = manifests.dtype_of(self.folder) if self._before is None else self._before["dtype"]
        dtype = encoder_dtype(self.dtype, known, device=self.device)
        changed = manifests.memory_of(self.folder) if self._before is None else self._before.get("memory")
        used = acting(self.memory, changed, self.model)
        self._stored = Stored(self.folder, self._before)
        found: list[Issue] = []
        plan = plan_items(
            self._survey.items,
            model=self.model,
            components=identities(components, used),
            dtype=dtype,
            memory=memory,
            stored=self._stored,
            report=found.append,
            progress=self.progress,
        )
        memory.save()
        self.tell.left_out(found)
        problems = (*self._survey.problems, *found)
        self._insist(problems)
        return Work(plan=plan, dtype=dtype, acting=used, users=plan.users(), problems=problems)

    def _earlier(self) -> Plain | None:
        """Return the manifest of an earlier build; a damaged one, or one of another version, counts as none."""
        if not manifests.exists(self.folder):
            return None
        try:
            before = manifests.read(self.folder)
        except CacheError as error:
            self.tell.warn(str(error))
            return None
        self._check_owner(before["architecture"])
        return before

    def _check_owner(self, architecture: str | None) -> None:
        if architecture is not None and architecture != self.model.name:
            hint = "give every architecture a cache folder of its own"
            message = f"holds a cache of {architecture}, not {self.model.name}"
            raise CacheError("wrong cache", [Issue(shown(self.folder), message, hint)])

    def _values(
        self, work: Work, complete: Sequence[Item], outputs: Mapping[str, Output], problems: Sequence[Issue]
    ) -> Plain:
        needs = work.plan.needs
        used = {print_ for item in complete for prints in needs[item.name].values() for print_ in prints}
        run = {stage for item in complete for stage in needs[item.name]}
        return {
            "format": manifests.FORMAT,
            "architecture": self.model.name,
            "dtype": work.dtype,
            **({"memory": changes} if (changes := told(work.acting)) else {}),
            "dataset": self._survey.fingerprint,
            "stages": [stage.name for stage in (*self.model.stages, MASK) if stage.name in run],
            "items": [item_line(CachedItem(item=item, outputs=needs[item.name])) for item in complete],
            "outputs": [self._line(print_, outputs) for print_ in sorted(used)],
            "problems": [issue_line(issue) for issue in problems],
            "notes": [issue_line(note) for note in self._survey.notes],
        }

    def _line(self, fingerprint: str, outputs: Mapping[str, Output]) -> Plain:
        made = outputs.get(fingerprint)
        return self._stored.line(fingerprint) if made is None else output_line(made)

    def _insist(self, problems: Sequence[Issue]) -> None:
        if self.strict and problems:
            raise DataError("some items cannot be used", problems)
