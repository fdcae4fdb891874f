"""Pictures and clips of a run's progress, drawn by the pipeline's own engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import attrs
import torch
from torch import Tensor

from musubi.architecture import Architecture
from musubi.core.control import CancelToken
from musubi.inference.asking import Conditions, ask, read_given
from musubi.inference.decoding import decoded, opened_decoder
from musubi.inference.denoising import Ready
from musubi.inference.jobs import draw_job
from musubi.inference.latents import Latents
from musubi.inference.media import Image, Video
from musubi.inference.prompts import Prompts, Words, encode_prompts, words_of
from musubi.inference.request import Job, Request
from musubi.memory.components import release
from musubi.memory.policy import MemoryPolicy
from musubi.training.processes import Processes
from musubi.training.trainer import Trainer


@attrs.frozen(kw_only=True, eq=False)
class Sampling:
    """What a run is asked to draw: complete jobs, their encoded prompts, and the policies for the decoder.

    ``words`` are the texts of each job, ``given`` the conditions that its pictures and clips come to.
    """

    model: Architecture
    jobs: tuple[Job, ...]
    words: tuple[tuple[Words, ...], ...]
    prompts: Prompts
    given: tuple[Conditions, ...] = ()
    memory: tuple[MemoryPolicy, ...] = ()

    @classmethod
    def prepare(cls, trainer: Trainer[Architecture], processes: Processes, *, dtype: torch.dtype) -> Sampling:
        """Encode this process's share of what is asked for, with the encoders freed before the denoiser is loaded.

        Raises:
            DataError: A picture or clip cannot be read.
        """
        device, asked = processes.device, trainer.samples[processes.rank :: processes.count]
        jobs = tuple(_in_training_size(request, trainer).job(trainer.model) for request in asked)
        shown = [read_given(job, trainer.model.geometry) for job in jobs]
        words = tuple(words_of(trainer.model, job.texts, seen) for job, seen in zip(jobs, shown, strict=True))
        prompts = encode_prompts(
            trainer.model, chain.from_iterable(words), policies=trainer.memory, device=device, dtype=dtype
        )
        given = ask(trainer.model, jobs, shown, policies=trainer.memory, device=device, dtype=dtype)
        return cls(
            model=trainer.model, jobs=jobs, words=words, prompts=prompts, given=tuple(given), memory=trainer.memory
        )

    def draw(
        self,
        loaded: Ready,
        *,
        device: torch.device,
        dtype: torch.dtype,
        cancel: CancelToken,
        on_step: Callable[[int, int], None],
    ) -> tuple[Image | Video, ...]:
        """Draw every job with the model as it is now; the decoder is loaded for the while, and freed.

        Raises:
            SamplingCancelledError: ``cancel`` was set.
        """
        if not self.jobs:
            return ()
        latents: list[Latents] = []
        for job, words, given in zip(self.jobs, self.words, self.given, strict=True):
            drawn = draw_job(
                self.model,
                loaded,
                self.prompts,
                job,
                words=words,
                given=given,
                sampler=None,
                device=device,
                dtype=dtype,
                on_step=partial(self._count, len(latents), on_step),
                cancel=cancel,
            )
            kept = Latents(tensor=drawn, fps=job.fps, trim_tail=job.trim_tail, metadata=job.metadata)
            latents.append(kept)
        try:
            return self._decoded(latents, device)
        finally:
            release(device)

    def _decoded(self, latents: Sequence[Latents], device: torch.device) -> tuple[Image | Video, ...]:
        with opened_decoder(self.model, policies=self.memory, device=device) as decoder:
            return tuple(decoded(self.model, decoder, latent, device=device) for latent in latents)

    def _count(self, drawn: int, on_step: Callable[[int, int], None], done: int, _: Tensor) -> None:
        before = sum(job.steps_taken for job in self.jobs[:drawn])
        on_step(before + done, sum(job.steps_taken for job in self.jobs))


def _in_training_size(request: Request, trainer: Trainer[Architecture]) -> Request:
    """Return the request with what it leaves open taken from the commonest bucket of the cache."""
    kinds = Counter((cached.item.bucket, cached.item.window.count) for cached in trainer.cache.items())
    size, frames = kinds.most_common(1)[0][0]
    return request.replace(size=request.size or size, frames=request.frames or frames)
