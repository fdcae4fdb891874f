"""Running a stage: decode ahead, encode batch by batch, write what is whole, name what cannot be made."""

from __future__ import annotations

import gc
import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from musubi.architecture import Architecture, Codec, Stage
from musubi.batch import Entry, Sample, batch_key
from musubi.cache import format as files
from musubi.cache import writing
from musubi.cache.building.ahead import decoded
from musubi.cache.building.batches import JobBatch
from musubi.cache.building.decode import Decoder, Failed, is_out_of_memory, too_large
from musubi.cache.building.jobs import Job
from musubi.cache.building.masks import MASK, encode_masks
from musubi.cache.building.policies import Acting
from musubi.cache.building.told import Teller
from musubi.cache.records import CachedFile, Output
from musubi.core.control import CancelToken
from musubi.core.errors import DataError, Issue, shown
from musubi.core.events import Progress
from musubi.memory.components import loaded, release

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Made:
    """What came of a process's share of a stage: outputs, and why others failed, with their batch and fingerprint."""

    outputs: tuple[Output, ...] = ()
    failures: tuple[tuple[int, str, Failed], ...] = ()


@attrs.define(kw_only=True)
class StageRun:
    """One stage with its components, which are loaded when the first batch needs them.

    ``acting`` are the memory policies that the components are loaded through, and placed by until the stage has run.
    ``known`` are the outputs that need not be written again; ``tell`` hears how it goes, and of everything left out.
    """

    stage: Stage
    folder: Path
    model: Architecture
    codec: Codec
    device: torch.device
    dtype: torch.dtype
    known: Mapping[str, Output]
    tell: Teller
    cancel: CancelToken
    acting: Acting = attrs.field(factory=dict)
    _models: dict[str, nn.Module] = attrs.field(factory=dict, init=False)
    _placed: ExitStack = attrs.field(factory=ExitStack, init=False)

    def run(self, batches: Sequence[JobBatch], *, progress: bool, title: str) -> Made:
        """Make the outputs of batches that are not known; they are safely on the disk when this returns.

        Raises:
            CacheError: The disk is full, or the folder may not be written.
        """
        outputs: list[Output] = []
        failures: list[tuple[int, str, Failed]] = []
        decode = Decoder(self.stage, [job for batch in batches for job in batch.jobs])
        total = sum(len(batch.jobs) for batch in batches)
        with (
            self._freed(),
            closing(decoded(batches, decode)) as ready,
            tqdm(total=total, desc=title, unit="item", disable=not progress or not batches) as bar,
        ):
            for batch, samples in ready:
                for job, result in self._results(batch, samples):
                    if isinstance(result, Output):
                        outputs.append(result)
                    else:
                        failures.append((batch.number, job.fingerprint, result))
                        self.tell.left_out(result.issues)
                    bar.update()
                    self.tell(
                        Progress(task=self.stage.name, done=len(outputs) + len(failures), total=total, detail=job.name)
                    )
                if self.cancel.cancelled:
                    break
        writing.sync(self.folder, [file.name for output in outputs for file in output.files])
        return Made(outputs=tuple(outputs), failures=tuple(failures))

    def _results(
        self, batch: JobBatch, samples: Sequence[Sample | Failed]
    ) -> Generator[tuple[Job, Output | Failed], None, None]:
        """Yield each job's output or why there is none; those that could be decoded are encoded together."""
        good = [(job, sample) for job, sample in zip(batch.jobs, samples, strict=True) if isinstance(sample, Sample)]
        encoded = iter(self._encode([job for job, _ in good], [sample for _, sample in good]))
        for job, sample in zip(batch.jobs, samples, strict=True):
            made = next(encoded) if isinstance(sample, Sample) else sample
            yield job, made if isinstance(made, Failed) else self._written(job, made)

    def _encode(self, jobs: Sequence[Job], samples: Sequence[Sample]) -> list[list[Entry] | Failed]:
        """Return the entries of each job; where a batch fails its parts are tried, so that only the bad one is lost."""
        if not jobs:
            return []
        try:
            return [*_by_sample(self._call(jobs, samples), samples)]
        except DataError as error:
            failed, half = Failed(error.issues), 1
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            hint = "take a smaller resolution or fewer frames, or encode with device='cpu'"
            failed, half = too_large(jobs[0], hint), len(jobs) // 2
        if len(jobs) == 1:
            return [failed]
        logger.info("%s: a batch of %d is encoded in parts: %s", self.stage.name, len(jobs), failed.issues[0])
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        parts = [slice(start, start + half) for start in range(0, len(jobs), half)]
        return [result for part in parts for result in self._encode(jobs[part], samples[part])]

    def _call(self, jobs: Sequence[Job], samples: Sequence[Sample]) -> Sequence[Entry]:
        if self.stage == MASK:
            return encode_masks(samples, geometry=self.model.geometry, frames=len(jobs[0].item.frames))
        for name in self.stage.components:
            if name not in self._models:
                self._models[name] = self._loaded(name)
        with torch.inference_mode():
            return self.codec.encode(self.stage, self._models, samples)

    def _loaded(self, name: str) -> nn.Module:
        component, policies = self.model.component(name), self.acting.get(name, ())
        return self._placed.enter_context(loaded(self.codec, component, policies, device=self.device, dtype=self.dtype))

    def _written(self, job: Job, entries: Sequence[Entry]) -> Output | Failed:
        """Write what was made of a job, unless it is there, and return its output."""
        if job.fingerprint in self.known:
            return self.known[job.fingerprint]
        if not all(_is_finite(entry.tensors.values()) for entry in entries):
            hint = "encode in dtype='float32', or look at the file"
            return Failed((Issue(shown(job.item.path), "the encoder's result is not finite", hint),))
        written = tuple(self._write(job, entry, part, len(entries)) for part, entry in enumerate(entries))
        return Output(stage=self.stage.name, fingerprint=job.fingerprint, files=written)

    def _write(self, job: Job, entry: Entry, part: int, parts: int) -> CachedFile:
        facts = files.metadata(job.item, architecture=self.model.name, caption=job.words)
        ours = {files.FINGERPRINT: job.fingerprint, files.PART: str(part), files.PARTS: str(parts)}
        data = files.dump(entry.tensors, facts | ours)
        name = job.file_names(parts)[part]
        writing.place(self.folder / name, data)
        return CachedFile(name=name, bytes=len(data), sha256=files.digest(data), key=batch_key(entry.tensors))

    @contextmanager
    def _freed(self) -> Generator[None, None, None]:
        """Free the stage's components at the end, so that those of two stages are never held together."""
        try:
            yield
        finally:
            if self._models:
                self._models.clear()
                self._placed.close()
                gc.collect()
                release(self.device)


def _by_sample(entries: Sequence[Entry], samples: Sequence[Sample]) -> list[list[Entry]]:
    """Return each sample's entries: one, or as many as bear its name."""
    if len(entries) == len(samples):
        return [[entry] for entry in entries]
    found = [[entry for entry in entries if entry.name == sample.name] for sample in samples]
    assert all(found), "a codec gives entries for every sample, each with its sample's name"
    return found


def _is_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all numbers are; the reference stores zeros for those that are not and trains on them."""
    return all(bool(torch.isfinite(t.float()).all()) for t in tensors if t.is_floating_point())
