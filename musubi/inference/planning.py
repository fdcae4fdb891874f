"""What a generation will need, before any weight is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from musubi.memory import plan as memory_plan
from musubi.memory.device import pick_device, pick_dtype

if TYPE_CHECKING:
    from musubi.architecture import Architecture
    from musubi.inference.pipeline import Pipeline
    from musubi.inference.request import Job


def plan(pipeline: Pipeline[Architecture], job: Job) -> memory_plan.Plan:
    """Return the need of one generation of this size and length."""
    model = pipeline.model
    name = f"{job.size[0]}x{job.size[1]}, {job.frames} frames"
    return memory_plan.plan(
        model.denoiser().empty(model.experts[0]),
        layout=model.layout,
        keys=model.keys,
        geometry=model.geometry,
        buckets={name: model.geometry.latent_shape(job.size, job.frames)},
        batch_size=1,
        trainable=0,
        policies=pipeline.memory,
        training=False,
        dtype=pick_dtype(pipeline.dtype, pick_device(pipeline.device)),
        title=model.title,
    )
