"""Building a cache: look and plan, encode a stage at a time what is not there yet, write the manifest."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import torch

from musubi.architecture import Architecture, Codec, Stage
from musubi.cache import manifest as manifests
from musubi.cache.building.batches import batches_of
from musubi.cache.building.dtypes import EncoderDtype
from musubi.cache.building.encode import Made, StageRun
from musubi.cache.building.leader import Leader, Work
from musubi.cache.building.told import Teller
from musubi.cache.records import Output
from musubi.core.control import CancelToken
from musubi.core.errors import CacheError, Issue, shown
from musubi.data.dataset import Dataset
from musubi.memory.policy import MemoryPolicy
from musubi.team import Team

_PATIENCE_S = 30.0
"""How long a process waits until it sees the manifest that another machine wrote."""


@attrs.define(kw_only=True)
class Builder:
    """One build; ``run`` is its table of contents.

    Every file carries the fingerprint of what it was made from, and appears whole or not at all. So a build that was
    killed at any moment is continued by the next one: what is there and right is kept, and the manifest comes last.
    Nothing is deleted, and nothing overwritten that another output may need: the old manifest stays true until then.
    """

    folder: Path
    model: Architecture
    datasets: Sequence[Dataset]
    team: Team
    device: torch.device
    dtype: EncoderDtype | None
    memory: Sequence[MemoryPolicy] | None
    strict: bool
    tell: Teller
    cancel: CancelToken
    progress: bool
    _problems: list[Issue] = attrs.field(factory=list, init=False)
    _failed: set[str] = attrs.field(factory=set, init=False)

    def run(self) -> bool:
        """Build; return False if it was cancelled before the end.

        Raises:
            DataError: No item can be used, or, if ``strict``, one cannot.
            CacheError: The folder holds the cache of another architecture, or cannot be written.
        """
        codec = self.model.codec()
        leader = self._leader(codec)
        with ExitStack() as stack:
            work = self.team.lead(lambda: leader.prepare(stack))
            if work is None:
                return False
            self._problems += work.problems
            outputs = dict(work.plan.outputs)
            for stage in work.plan.stages:
                shares = self.team.share(partial(self._encode, stage, work, outputs, codec))
                made = [share for share in shares if share is not None]
                if len(made) < len(shares):
                    return False
                self._gather(made, work, outputs)
            self.team.lead(lambda: leader.finish(work, outputs, self._failed, self._problems))
            if self.team.count > 1:
                written = self.team.lead(lambda: manifests.digest(self.folder))
                self.team.share(lambda: self._check_seen(written))
        return True

    def _leader(self, codec: Codec) -> Leader:
        return Leader(
            folder=self.folder,
            model=self.model,
            codec=codec,
            datasets=self.datasets,
            device=self.device.type,
            dtype=self.dtype,
            memory=self.memory,
            strict=self.strict,
            tell=self.tell,
            cancel=self.cancel,
            progress=self.progress,
        )

    def _encode(self, stage: Stage, work: Work, outputs: Mapping[str, Output], codec: Codec) -> Made | None:
        """Run this process's share of a stage's missing jobs; None if cancelled."""
        if self._is_cancelled():
            return None
        pending = [job for job in work.plan.jobs.values() if job.stage == stage]
        batches = batches_of(job for job in pending if not work.users[job.fingerprint] <= self._failed)
        wanted = [batch for batch in batches if any(job.fingerprint not in outputs for job in batch.jobs)]
        run = StageRun(
            stage=stage,
            folder=self.folder,
            model=self.model,
            codec=codec,
            device=self.device,
            dtype=getattr(torch, work.dtype),
            acting=work.acting,
            known=outputs,
            tell=self.tell,
            cancel=self.cancel,
        )
        title = stage.name if self.team.count == 1 else f"{stage.name}, process 1 of {self.team.count}"
        share = wanted[self.team.rank :: self.team.count]
        made = run.run(share, progress=self.progress and self.team.leads, title=title)
        return None if self._is_cancelled() else made

    def _gather(self, shares: Sequence[Made], work: Work, outputs: dict[str, Output]) -> None:
        """Take over what the processes made, and the problems they met, in the order in which one alone meets them."""
        outputs |= {output.fingerprint: output for made in shares for output in made.outputs}
        failures = sorted((failure for made in shares for failure in made.failures), key=lambda failure: failure[0])
        for _, fingerprint, failed in failures:
            self._failed |= work.users[fingerprint]
            self._problems += failed.issues

    def _check_seen(self, written: str) -> None:
        """Make sure that the folder is the same one for all processes, on whichever machine."""
        until = time.monotonic() + _PATIENCE_S
        while manifests.digest(self.folder) != written:
            if time.monotonic() > until:
                hint = "put the cache on a disk that all machines share"
                message = "this process does not see what the first one wrote"
                raise CacheError("cache is not shared", [Issue(shown(self.folder), message, hint)])
            time.sleep(0.1)

    def _is_cancelled(self) -> bool:
        return self.cancel.cancelled
