"""One job on a loaded denoiser: what the pipeline and a training run's samples have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from musubi.architecture import Architecture
from musubi.batch import GUIDANCE
from musubi.core.control import CancelToken
from musubi.inference.denoising import Ready
from musubi.inference.engine import Start, draw_noise, sample_latents
from musubi.inference.prompts import Prompts, Words
from musubi.inference.request import Job
from musubi.noise.guidance import Guidance
from musubi.noise.samplers import OnStep, Sampler

_START, _POSITIONS = "latents", "f_indices"
"""What ``Codec.ask`` calls the latents of a clip that is changed, and the places in time of single pictures."""


def draw_job(
    model: Architecture,
    loaded: Ready,
    prompts: Prompts,
    job: Job,
    *,
    words: Sequence[Words],
    given: Mapping[str, Tensor] = MappingProxyType({}),
    sampler: Sampler | None,
    device: torch.device,
    dtype: torch.dtype,
    on_step: OnStep | None = None,
    cancel: CancelToken | None = None,
) -> Tensor:
    """Return the latents of a job, shape (1, channels, frames, height, width); its texts are among ``prompts``.

    ``words`` are these texts, the negative one last, ``given`` is what ``Codec.ask`` made of its pictures and clips.
    """
    shape = _shape(model, job, given)
    extra = {name: tensor for name, tensor in given.items() if name != _START}
    scale = _embedded(model, job)
    if scale is not None:
        extra[GUIDANCE] = torch.tensor(scale)
    conditions = [prompts.conditions(loaded.denoiser, [one], device=device, extra=extra) for one in words]
    latents = sample_latents(
        loaded.denoiser,
        loaded.at,
        draw_noise(shape, [job.seed]),
        positive=conditions[0],
        negative=conditions[1] if len(conditions) > 1 else None,
        sampler=_sampler(sampler or model.sampler_for(job.size), job),
        guidance=job.guidance,
        steps=job.steps,
        tokens=model.geometry.tokens(shape),
        device=device,
        dtype=dtype,
        experts=model.experts,
        blocks=model.layout.blocks,
        start=Start(latents=given[_START][None], strength=job.strength) if _START in given else None,
        on_step=on_step,
        cancel=cancel,
    )
    return _kept(job.model(model), given, latents)


def _shape(model: Architecture, job: Job, given: Mapping[str, Tensor]) -> tuple[int, int, int, int]:
    """Return the shape of the latents; beside a single picture lie those it is made from."""
    channels, frames, height, width = model.geometry.latent_shape(job.size, job.frames)
    return channels, len(given[_POSITIONS]) if _POSITIONS in given else frames, height, width


def _embedded(model: Architecture, job: Job) -> float | None:
    """Return the scale that a model with guidance as an input is told: its own, where the job's rule says nothing."""
    usual = model.generation.guidance
    own = usual.embedded if isinstance(usual, Guidance) else None
    return own if job.guidance.embedded is None else job.guidance.embedded


def _kept(model: Architecture, given: Mapping[str, Tensor], latents: Tensor) -> Tensor:
    """Return all frames, or of a single picture's latents its own."""
    if model.target_position is None or _POSITIONS not in given:
        return latents
    slot = given[_POSITIONS].tolist().index(model.target_position)
    return latents[:, :, slot : slot + 1]


def _sampler(sampler: Sampler, job: Job) -> Sampler:
    """Return the sampler with the job's own shift, if it has one."""
    return sampler if job.shift is None else sampler.replace(shift=job.shift)
