"""Generating: text encoders, denoiser and decoder one after the other, kept loaded where that was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self

from torch import Tensor, nn
from typing_extensions import TypeVar

from musubi.architecture import Architecture, Asked
from musubi.core.control import CancelToken
from musubi.core.events import Callback, Progress
from musubi.inference.asking import Conditions, ask, digest, read_given
from musubi.inference.decoding import decoded, opened_decoder
from musubi.inference.denoising import Ready, ready
from musubi.inference.drawing import Draws
from musubi.inference.fitting import arranged
from musubi.inference.jobs import draw_job
from musubi.inference.latents import Latents, check_latents
from musubi.inference.media import Image, Video
from musubi.inference.planning import settled
from musubi.inference.prompts import Prompts, Words, encode_prompts, sees_pictures, words_of
from musubi.inference.request import Job, Request
from musubi.memory.components import release
from musubi.memory.device import pick_device, pick_dtype, usable_device
from musubi.memory.policy import MemoryPolicy, Placement, check_machine

if TYPE_CHECKING:
    from musubi.inference.pipeline import Pipeline

A_co = TypeVar("A_co", bound=Architecture, covariant=True, default=Architecture)


class Session(Draws, Generic[A_co]):
    """A pipeline at work; ``Pipeline.open`` makes one, leaving its ``with`` frees everything.

    Models are loaded when first needed. With ``keep`` the denoiser and the decoder stay until the end, and prompts
    stay encoded; without it each is freed before the next is loaded, so that the peak is the largest and not the sum.
    """

    def __init__(self, pipeline: Pipeline[A_co], *, keep: bool, prompts: Iterable[str] = ()) -> None:
        self._pipeline, self._keep = pipeline, keep
        self._device = pick_device(pipeline.device) if pipeline.device is None else usable_device(pipeline.device)
        self._dtype = pick_dtype(pipeline.dtype, self._device)
        self._loras = tuple((use, use.file()) for use in pipeline.loras)
        self._ahead = () if sees_pictures(pipeline.model) else words_of(pipeline.model, prompts)
        self._prompts = Prompts({})
        self._shown: tuple[str, Conditions] | None = None
        self._stack, self._decoding = ExitStack(), ExitStack()
        self._policies: tuple[MemoryPolicy, ...] = ()
        self._ready: Ready | None = None
        self._decoder: nn.Module | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Undo what was attached and free all models."""
        self._free_decoder()
        self._free_denoiser()

    def draw(
        self, request: Request, *, on: Iterable[Callback] = (), cancel: CancelToken | None = None
    ) -> Image | Video:
        """Return the picture or clip of a request; callbacks hear ``Progress``.

        Raises:
            ConfigError: The model cannot make this size or number of frames.
            WeightsError: A checkpoint cannot be read or does not fit.
            DataError: A picture or clip of the request cannot be read.
            SamplingCancelledError: ``cancel`` was set.
        """
        callbacks = tuple(on)
        return self.decode(self.draw_latents(request, on=callbacks, cancel=cancel), on=callbacks)

    def draw_latents(
        self, request: Request, *, on: Iterable[Callback] = (), cancel: CancelToken | None = None
    ) -> Latents:
        """Return the latents of a request, to be saved and decoded later; raises what ``draw`` does."""
        job, callbacks = request.job(self._pipeline.model), tuple(on)
        if self._ready is None:  # before the first weight is loaded, of whichever model
            self._policies = self._fitting(job)
        words, given = self._encode(job)
        _tell(callbacks, "encoding", 1, 1)
        latents = self._sample(job, words, given, callbacks, cancel)
        if not self._keep:
            self._free_denoiser()
        return Latents(tensor=latents, fps=job.fps, trim_tail=job.trim_tail, metadata=self._facts(job))

    def decode(self, latents: Latents, *, on: Iterable[Callback] = ()) -> Image | Video:
        """Return the picture or clip of latents, of this session or from a file; callbacks hear ``Progress``.

        Raises:
            ConfigError: The latents are another model's.
            WeightsError: The decoder cannot be read.
        """
        pipeline = self._pipeline
        check_latents(latents, pipeline.model)
        if self._decoder is None:
            opened = opened_decoder(pipeline.model, policies=pipeline.memory, device=self._device)
            self._decoder = self._decoding.enter_context(opened)
        drawn = decoded(pipeline.model, self._decoder, latents, device=self._device)
        if not self._keep:
            self._free_decoder()
        _tell(tuple(on), "decoding", 1, 1)
        return drawn

    def _encode(self, job: Job) -> tuple[Sequence[Words], Conditions]:
        """Encode the texts not met before and what the job shows; return its texts and what the latter comes to."""
        model = self._pipeline.model
        asked = read_given(job, model.geometry) if job.given.sources else None
        words = words_of(model, job.texts, asked)
        self._encode_texts(words)
        return words, {} if asked is None else self._ask(job, asked)

    def _ask(self, job: Job, asked: Asked) -> Conditions:
        """Return what a job shows as conditions; those of the last one are kept for a job that shows the same."""
        pipeline, content = self._pipeline, digest(job, asked)
        if self._shown is None or self._shown[0] != content:
            (given,) = ask(
                pipeline.model, [job], [asked], policies=pipeline.memory, device=self._device, dtype=self._dtype
            )
            self._shown = (content, given)
        return self._shown[1]

    def _encode_texts(self, words: Sequence[Words]) -> None:
        wanted = self._prompts.missing((*words, *self._ahead))
        if wanted:
            pipeline = self._pipeline
            found = encode_prompts(
                pipeline.model, wanted, policies=pipeline.memory, device=self._device, dtype=self._dtype
            )
            self._prompts = self._prompts.plus(found)

    def _sample(
        self,
        job: Job,
        words: Sequence[Words],
        given: Conditions,
        callbacks: tuple[Callback, ...],
        cancel: CancelToken | None,
    ) -> Tensor:
        return draw_job(
            self._pipeline.model,
            self._denoiser(),
            self._prompts,
            job,
            words=words,
            given=given,
            sampler=self._pipeline.sampler,
            device=self._device,
            dtype=self._dtype,
            on_step=lambda done, _: _tell(callbacks, "sampling", done, job.steps_taken),
            cancel=cancel,
        )

    def _fitting(self, job: Job) -> tuple[MemoryPolicy, ...]:
        """Return the memory policies, with what they leave open decided for the first job, once all of them fit.

        Raises:
            ConfigError: They do not fit the model, the file or this machine, or nothing fits a budget.
        """
        model, memory = self._pipeline.model, self._pipeline.memory
        placement = Placement(
            title=model.title, layout=model.layout, device=self._device, dtype=self._dtype, training=False
        )
        check_machine(memory, placement)
        arranged(model, model.denoiser(), memory)
        return settled(self._pipeline, job, self._device)

    def _denoiser(self) -> Ready:
        """Return the loaded denoiser."""
        if self._ready is None:
            pipeline = self._pipeline
            opened = ready(
                pipeline.model, loras=self._loras, policies=self._policies, device=self._device, dtype=self._dtype
            )
            self._ready = self._stack.enter_context(opened)
        return self._ready

    def _free_denoiser(self) -> None:
        self._ready = None
        self._stack.close()
        release(self._device)

    def _free_decoder(self) -> None:
        self._decoder = None
        self._decoding.close()
        release(self._device)

    def _facts(self, job: Job) -> dict[str, str]:
        pipeline = self._pipeline
        used = {"loras": ", ".join(use.name for use in pipeline.loras)} if pipeline.loras else {}
        return {**job.metadata, "model": pipeline.model.title, **used}


def _tell(callbacks: tuple[Callback, ...], task: str, done: int, total: int) -> None:
    for callback in callbacks:
        callback(Progress(task=task, done=done, total=total))
