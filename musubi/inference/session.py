"""Generating: text encoders, denoiser and decoder one after the other, kept loaded where that was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self

from torch import Tensor, nn
from typing_extensions import TypeVar

from musubi.architecture import Architecture
from musubi.core.control import CancelToken
from musubi.core.events import Callback, Progress
from musubi.inference.decoding import decode, media, opened_decoder
from musubi.inference.denoising import Ready, ready
from musubi.inference.drawing import Draws
from musubi.inference.fitting import arranged
from musubi.inference.jobs import draw_job
from musubi.inference.media import Image, Video
from musubi.inference.planning import settled
from musubi.inference.prompts import Prompts, encode_prompts
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
        self._ahead = tuple(prompts)
        self._prompts = Prompts({})
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
            SamplingCancelledError: ``cancel`` was set.
        """
        job, callbacks = request.job(self._pipeline.model), tuple(on)
        if self._ready is None:  # before the first weight is loaded, of whichever model
            self._policies = self._fitting(job)
        self._encode(job)
        _tell(callbacks, "encoding", 1, 1)
        latents = self._sample(job, callbacks, cancel)
        if not self._keep:
            self._free_denoiser()
        frames = self._decode(latents)
        _tell(callbacks, "decoding", 1, 1)
        return media(frames[0], fps=job.fps, metadata=self._facts(job))

    def _encode(self, job: Job) -> None:
        wanted = self._prompts.missing((*job.texts, *self._ahead))
        if wanted:
            pipeline = self._pipeline
            found = encode_prompts(
                pipeline.model, wanted, policies=pipeline.memory, device=self._device, dtype=self._dtype
            )
            self._prompts = self._prompts.plus(found)

    def _sample(self, job: Job, callbacks: tuple[Callback, ...], cancel: CancelToken | None) -> Tensor:
        return draw_job(
            self._pipeline.model,
            self._denoiser(),
            self._prompts,
            job,
            sampler=self._pipeline.sampler,
            device=self._device,
            dtype=self._dtype,
            on_step=lambda done, _: _tell(callbacks, "sampling", done, job.steps),
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

    def _decode(self, latents: Tensor) -> Tensor:
        pipeline = self._pipeline
        if self._decoder is None:
            opened = opened_decoder(pipeline.model, policies=pipeline.memory, device=self._device)
            self._decoder = self._decoding.enter_context(opened)
        frames = decode(pipeline.model, self._decoder, latents)
        if not self._keep:
            self._free_decoder()
        return frames

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
