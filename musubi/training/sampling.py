"""Pictures and clips of a run's progress, drawn by the pipeline's own engine."""

from __future__ import annotations

import attrs
import torch

from musubi.architecture import Architecture
from musubi.inference.decoding import decode, load_decoder, media
from musubi.inference.denoising import Ready
from musubi.inference.jobs import draw_job
from musubi.inference.media import Image, Video
from musubi.inference.prompts import Prompts, encode_prompts
from musubi.inference.request import Job
from musubi.training.trainer import Trainer


@attrs.frozen(kw_only=True, eq=False)
class Sampling:
    """What a run is asked to draw: complete jobs and their encoded prompts."""

    model: Architecture
    jobs: tuple[Job, ...]
    prompts: Prompts

    @classmethod
    def prepare(cls, trainer: Trainer[Architecture], *, device: torch.device, dtype: torch.dtype) -> Sampling:
        """Encode all prompts, with the text encoders freed again before the denoiser is loaded."""
        jobs = tuple(request.job(trainer.model) for request in trainer.samples)
        texts = [text for job in jobs for text in job.texts]
        return cls(
            model=trainer.model,
            jobs=jobs,
            prompts=encode_prompts(trainer.model, texts, device=device, dtype=dtype) if texts else Prompts({}),
        )

    def draw(self, loaded: Ready, *, device: torch.device, dtype: torch.dtype) -> tuple[Image | Video, ...]:
        """Draw every job with the model as it is now; the decoder is loaded for the while."""
        latents = [
            draw_job(self.model, loaded, self.prompts, job, sampler=None, device=device, dtype=dtype)
            for job in self.jobs
        ]
        decoder = load_decoder(self.model, device=device)
        return tuple(
            media(decode(self.model, decoder, latent)[0], fps=job.fps, metadata=job.metadata)
            for job, latent in zip(self.jobs, latents, strict=True)
        )
