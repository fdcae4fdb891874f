"""One job on a loaded denoiser: what the pipeline and a training run's samples have in common."""

from __future__ import annotations

from torch import Tensor, device, dtype

from musubi.architecture import Architecture
from musubi.core.control import CancelToken
from musubi.inference.denoising import Ready
from musubi.inference.engine import draw_noise, sample_latents
from musubi.inference.prompts import Prompts
from musubi.inference.request import Job
from musubi.noise.samplers import OnStep, Sampler


def draw_job(
    model: Architecture,
    loaded: Ready,
    prompts: Prompts,
    job: Job,
    *,
    sampler: Sampler | None,
    device: device,
    dtype: dtype,
    on_step: OnStep | None = None,
    cancel: CancelToken | None = None,
) -> Tensor:
    """Return the latents of a job, shape (1, channels, frames, height, width); its texts are among ``prompts``."""
    shape = model.geometry.latent_shape(job.size, job.frames)
    conditions = [prompts.conditions(loaded.denoiser, [text], device=device) for text in job.texts]
    return sample_latents(
        loaded.denoiser,
        loaded.model,
        draw_noise(shape, [job.seed]),
        positive=conditions[0],
        negative=conditions[1] if len(conditions) > 1 else None,
        sampler=_sampler(sampler or model.sampler, job),
        guidance=job.guidance,
        steps=job.steps,
        tokens=model.geometry.tokens(shape),
        device=device,
        dtype=dtype,
        adapters=loaded.adapters,
        on_step=on_step,
        cancel=cancel,
    )


def _sampler(sampler: Sampler, job: Job) -> Sampler:
    """Return the sampler with the job's own shift, if it has one."""
    return sampler if job.shift is None else sampler.replace(shift=job.shift)
