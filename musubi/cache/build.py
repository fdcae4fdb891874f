"""Building a cache: plan, encode a stage at a time what is not there yet, write the manifest."""

from __future__ import annotations

import gc
import logging
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from musubi.architecture import Architecture, Codec, Models, Stage
from musubi.batch import batch_key
from musubi.cache import format as files
from musubi.cache import manifest as manifests
from musubi.cache.hashes import Hashes
from musubi.cache.jobs import Job, Plan, Planner
from musubi.cache.manifest import CachedFile, CachedItem, Manifest, Output
from musubi.core.control import CancelToken
from musubi.core.errors import CacheError, DataError, Issue, shown
from musubi.core.events import Callback, Progress, Warned
from musubi.data.dataset import Dataset
from musubi.data.media import load_sample
from musubi.data.sample import Item

logger = logging.getLogger(__name__)


@attrs.define(kw_only=True)
class Builder:
    """One build; ``run`` is its table of contents.

    Every file carries the fingerprint of what it was made from, and appears whole or not at all. So a build that was
    killed at any moment is continued by the next one: what is there and right is kept, and the manifest comes last.
    """

    folder: Path
    model: Architecture
    dataset: Dataset
    device: torch.device
    dtype: torch.dtype | None
    strict: bool
    on: Sequence[Callback]
    cancel: CancelToken
    progress: bool
    problems: list[Issue] = attrs.field(factory=list, init=False)
    failed: set[str] = attrs.field(factory=set, init=False)

    def run(self) -> bool:
        """Build; return False if it was cancelled before the end.

        Raises:
            DataError: No item can be used, or, if ``strict``, one cannot.
            CacheError: The folder holds the cache of another architecture, or cannot be written.
        """
        items = self._items()
        before = self._before()
        self._sweep()
        codec, dtype = self.model.codec(), self._dtype(before)
        hashes = Hashes(self.folder)
        planner = Planner(model=self.model, codec=codec, hashes=hashes, dtype=_name(dtype), report=self._report)
        plan = planner.plan(items)
        hashes.save()
        self._insist()
        outputs = self._reusable(plan, before)
        for stage in self.model.stages:
            if self.cancel.cancelled:
                return False
            self._encode(stage, plan, outputs, codec, dtype)
        if self.cancel.cancelled:
            return False
        self._finish(plan, outputs, before, dtype)
        return True

    def _items(self) -> tuple[Item, ...]:
        """Return the dataset's items that carry what the model needs."""
        scan = self.dataset.with_geometry(self.model.geometry).scan(on=self.on)
        for issue in scan.dropped:
            self._report(issue)
        usable: list[Item] = []
        for item in scan.items:
            missing = [role for role in self.model.roles.required if role not in item.controls]
            if missing:
                hint = f"this model needs a {missing[0]} with every item"
                self._report(Issue(shown(item.path), f"{missing[0]} missing", hint))
            else:
                usable.append(item)
        if not usable:
            raise DataError("no item can be used", self.problems)
        return tuple(usable)

    def _before(self) -> Manifest | None:
        """Return the manifest of an earlier build; a damaged one counts as none."""
        if not manifests.exists(self.folder):
            return None
        try:
            before = manifests.load(self.folder)
        except CacheError as error:
            self._tell(Warned(message=str(error)))
            return None
        if before.architecture != self.model.name:
            hint = "give every architecture a cache folder of its own"
            message = f"holds a cache of {before.architecture}, not {self.model.name}"
            raise CacheError("wrong cache", [Issue(shown(self.folder), message, hint)])
        return before

    def _sweep(self) -> None:
        """Remove the temporary files of a build that was killed."""
        for path in self.folder.glob(".*.tmp.*"):
            path.unlink(missing_ok=True)

    def _dtype(self, before: Manifest | None) -> torch.dtype:
        """Return what was asked for, else what the cache was begun with, else what suits the device."""
        if self.dtype is not None:
            return self.dtype
        if before is not None:
            known = getattr(torch, before.dtype, None)
            if isinstance(known, torch.dtype):
                return known
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    def _reusable(self, plan: Plan, before: Manifest | None) -> dict[str, Output]:
        """Return the outputs that need not be made again: listed ones, and those a killed build left behind."""
        listed = before.outputs if before is not None else {}
        found = {label: _kept(self.folder, job, listed.get(label)) for label, job in plan.jobs.items()}
        return {label: output for label, output in found.items() if output is not None}

    def _encode(self, stage: Stage, plan: Plan, outputs: dict[str, Output], codec: Codec, dtype: torch.dtype) -> None:
        """Run a stage's missing jobs, with only that stage's components loaded."""
        pending = [job for label, job in plan.jobs.items() if job.stage == stage and label not in outputs]
        pending = [job for job in pending if not plan.users[job.label] <= self.failed]
        if not pending:
            return
        with (
            _loaded(stage, codec, self.device, dtype) as models,
            tqdm(total=len(pending), desc=stage.name, unit="item", disable=not self.progress) as bar,
        ):
            for done, job in enumerate(pending, start=1):
                try:
                    outputs[job.label] = self._encode_job(job, codec, models)
                except DataError as error:
                    self._fail(plan.users[job.label], error)
                bar.update()
                self._tell(Progress(task=stage.name, done=done, total=len(pending), detail=job.item.name))
                if self.cancel.cancelled:
                    return

    def _encode_job(self, job: Job, codec: Codec, models: Models) -> Output:
        reads = job.stage.reads
        sample = load_sample(job.item, pixels="pixels" in reads, controls="controls" in reads)
        with torch.inference_mode():
            entries = codec.encode(job.stage, models, [sample])
        for entry in entries:
            _check_numbers(job.item, entry.tensors.values())
        names = job.file_names(len(entries))
        facts = files.metadata(job.item, architecture=self.model.name, text="pixels" not in reads)
        facts |= {files.FINGERPRINT: job.fingerprint, files.PARTS: str(len(entries))}
        written: list[CachedFile] = []
        for name, entry in zip(names, entries, strict=True):
            data = files.dump(entry.tensors, facts)
            files.write(self.folder / name, data)
            key = batch_key(entry.tensors)
            written.append(CachedFile(name=name, bytes=len(data), sha256=files.digest(data), key=key))
        return Output(stage=job.stage.name, fingerprint=job.fingerprint, files=tuple(written))

    def _finish(self, plan: Plan, outputs: dict[str, Output], before: Manifest | None, dtype: torch.dtype) -> None:
        """Write the manifest of all complete items and remove the files that only the old manifest lists."""
        complete = [item for item in plan.items if all(label in outputs for label in plan.needs[item.name].values())]
        if not complete:
            raise DataError("no item can be used", self.problems)
        self._insist()
        used = {label for item in complete for label in plan.needs[item.name].values()}
        manifest = Manifest(
            architecture=self.model.name,
            dtype=_name(dtype),
            dataset=self.dataset.fingerprint(),
            stages=tuple(stage.name for stage in self.model.stages),
            items=tuple(CachedItem(item=item, outputs=plan.needs[item.name]) for item in complete),
            outputs={label: outputs[label] for label in sorted(used)},
            problems=tuple(self.problems),
        )
        manifests.save(self.folder, manifest)
        stale = {file.name for file in before.files} - {file.name for file in manifest.files} if before else set[str]()
        for name in sorted(stale):
            (self.folder / Path(name).name).unlink(missing_ok=True)

    def _fail(self, names: frozenset[str], error: DataError) -> None:
        self.failed |= names
        for issue in error.issues:
            self._report(issue)

    def _insist(self) -> None:
        if self.strict and self.problems:
            raise DataError("some items cannot be used", self.problems)

    def _report(self, issue: Issue) -> None:
        logger.warning("left out: %s", issue)
        self.problems.append(issue)
        self._tell(Warned(message=str(issue)))

    def _tell(self, event: Progress | Warned) -> None:
        for callback in self.on:
            callback(event)


@contextmanager
def _loaded(stage: Stage, codec: Codec, device: torch.device, dtype: torch.dtype) -> Generator[Models]:
    """Give a stage's components, and free them afterwards, so that those of two stages are never held together."""
    models: dict[str, nn.Module] = {}
    try:
        for component in stage.components:
            models[component] = codec.load(component, device=device, dtype=dtype)
        yield models
    finally:
        models.clear()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _kept(folder: Path, job: Job, listed: Output | None) -> Output | None:
    """Return a job's output if its files are there, whole and made from the same; None if it must be made."""
    if listed is not None and listed.fingerprint == job.fingerprint and _all_there(folder, listed):
        return listed
    for first in (job.file_names(1)[0], job.file_names(2)[0]):
        facts = files.read_header(folder / first) or {}
        parts = facts.get(files.PARTS, "")
        if facts.get(files.FINGERPRINT) == job.fingerprint and parts.isdecimal():
            return _recovered(folder, job, int(parts))
    return None


def _all_there(folder: Path, output: Output) -> bool:
    return all(_made_from(folder / file.name, output.fingerprint, size=file.bytes) for file in output.files)


def _recovered(folder: Path, job: Job, parts: int) -> Output | None:
    """Return the output whose files a killed build wrote but did not list; None if some are missing."""
    names = job.file_names(parts)
    if not all(_made_from(folder / name, job.fingerprint) for name in names):
        return None
    described: list[CachedFile] = []
    for name in names:
        data = (folder / name).read_bytes()
        key = batch_key(files.load(folder / name))
        described.append(CachedFile(name=name, bytes=len(data), sha256=files.digest(data), key=key))
    return Output(stage=job.stage.name, fingerprint=job.fingerprint, files=tuple(described))


def _made_from(path: Path, fingerprint: str, *, size: int | None = None) -> bool:
    """Return whether a file is whole and carries a fingerprint."""
    facts = files.read_header(path)
    return (
        facts is not None
        and facts.get(files.FINGERPRINT) == fingerprint
        and (size is None or path.stat().st_size == size)
    )


def _check_numbers(item: Item, tensors: Iterable[Tensor]) -> None:
    """Refuse an entry that is not finite; the reference stores zeros instead and trains on them."""
    if not all(bool(torch.isfinite(t.float()).all()) for t in tensors if t.is_floating_point()):
        hint = "encode in dtype='float32', or look at the file"
        raise DataError("cannot encode", [Issue(shown(item.path), "the encoder's result is not finite", hint)])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
