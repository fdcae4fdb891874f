"""What a build has to encode: one job for each output, with a fingerprint of everything that goes into it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping

import attrs

from musubi.architecture import Architecture, Codec, Stage
from musubi.cache import format as files
from musubi.cache.hashes import Hashes
from musubi.core.errors import DataError, Issue
from musubi.data.sample import Item

_RULES = 1
"""Raised whenever decoding, resizing or a file's form changes, so that old entries are encoded again."""


@attrs.frozen(kw_only=True)
class Job:
    """One output to have: a stage run on an item. ``media`` is the stem of its files."""

    stage: Stage
    item: Item
    media: str
    suffix: str
    fingerprint: str

    @property
    def label(self) -> str:
        """The output's name."""
        return self._named(None)

    def file_names(self, parts: int) -> tuple[str, ...]:
        """Return the names of the files if the stage makes so many entries of the item."""
        if parts == 1:
            return (self.label + files.SUFFIX,)
        return tuple(self._named(part) + files.SUFFIX for part in range(parts))

    def _named(self, part: int | None) -> str:
        if "pixels" in self.stage.reads:
            still = self.item.kind == "image"
            return files.latent_label(
                self.media,
                size=self.item.size if still else self.item.bucket,
                suffix=self.suffix,
                window=None if still else self.item.window,
                part=part,
            )
        section = "" if part is None else f"_{part:04d}"
        return files.text_label(self.media + section, suffix=self.suffix)


@attrs.frozen(kw_only=True)
class Plan:
    """The jobs by label, which of them each item needs by stage, and which items use each."""

    items: tuple[Item, ...]
    jobs: Mapping[str, Job]
    needs: Mapping[str, Mapping[str, str]]
    users: Mapping[str, frozenset[str]]


@attrs.frozen(kw_only=True)
class Planner:
    """Work out the jobs of a model's stages; ``dtype`` is what the encoders run in."""

    model: Architecture
    codec: Codec
    hashes: Hashes
    dtype: str
    report: Callable[[Issue], None]

    def plan(self, items: Iterable[Item]) -> Plan:
        """Return what the items need; an item whose files cannot be read is reported and left out."""
        identities = {c: self.codec.identity(c) for stage in self.model.stages for c in stage.components}
        jobs: dict[str, Job] = {}
        needs: dict[str, dict[str, str]] = {}
        kept: list[Item] = []
        for item in items:
            try:
                wanted = [self._job(stage, item, identities, jobs) for stage in self.model.stages]
            except DataError as error:
                for issue in error.issues:
                    self.report(issue)
                continue
            jobs |= {job.label: job for job in wanted if job.label not in jobs}
            needs[item.name] = {job.stage.name: job.label for job in wanted}
            kept.append(item)
        users: dict[str, set[str]] = {label: set() for label in jobs}
        for name, needed in needs.items():
            for label in needed.values():
                users[label].add(name)
        return Plan(items=tuple(kept), jobs=jobs, needs=needs, users={k: frozenset(v) for k, v in users.items()})

    def _job(self, stage: Stage, item: Item, identities: Mapping[str, str], taken: Mapping[str, Job]) -> Job:
        job = Job(
            stage=stage,
            item=item,
            media=item.media if "pixels" in stage.reads or stage.reads == ("caption",) else item.name,
            suffix=self._suffix(stage),
            fingerprint=self._fingerprint(stage, item, identities),
        )
        rival = taken.get(job.label)
        if rival is None or rival.fingerprint == job.fingerprint:
            return job
        return attrs.evolve(job, media=f"{job.media}-{files.digest(item.name.encode())[:8]}")

    def _suffix(self, stage: Stage) -> str:
        """Return the architecture's suffix, behind the stage's name where an earlier stage has taken the plain one."""
        pixels = "pixels" in stage.reads
        first = next(s for s in self.model.stages if ("pixels" in s.reads) == pixels)
        return self.model.cache_suffix if first == stage else f"{stage.name}_{self.model.cache_suffix}"

    def _fingerprint(self, stage: Stage, item: Item, identities: Mapping[str, str]) -> str:
        made_from: dict[str, object] = {
            "rules": _RULES,
            "architecture": self.model.name,
            "stage": stage.name,
            "components": {component: identities[component] for component in stage.components},
            "dtype": self.dtype,
        }
        if "caption" in stage.reads:
            made_from["caption"] = item.caption
        if "pixels" in stage.reads:
            made_from["pixels"] = self.hashes.of(item.path)
        if "controls" in stage.reads:
            made_from["controls"] = {r: [self.hashes.of(path) for path in paths] for r, paths in item.controls.items()}
        if stage.reads != ("caption",):
            made_from["frames"] = [item.window.start, item.window.count]
            made_from["bucket"] = list(item.bucket)
        return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]
