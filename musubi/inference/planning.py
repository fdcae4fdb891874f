"""What a generation will need, before any weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from musubi.inference.components import decoder_bytes, encoding
from musubi.inference.fitting import fit_context, opened
from musubi.inference.foreseen import Shape, prediction
from musubi.memory.budget import size
from musubi.memory.device import pick_device, pick_dtype
from musubi.memory.forecast import Bucket, Forecast, Subject
from musubi.memory.hardware import Hardware, as_hardware
from musubi.memory.plan import Other, Plan, plan_of
from musubi.memory.policy import FitContext, MemoryPolicy
from musubi.memory.resolve import is_open, resolved

if TYPE_CHECKING:
    import torch

    from musubi.architecture import Architecture
    from musubi.inference.pipeline import Pipeline
    from musubi.inference.request import Job

PROGRAM = 1536 << 20
"""Bytes of host memory that Python takes with torch and the models' libraries; an assumption."""


def plan(pipeline: Pipeline[Architecture], job: Job, *, hardware: Hardware | str | None = None) -> Plan:
    """Return the need of one generation of this size and length.

    Raises:
        ConfigError: There is no such hardware, the policies do not fit, or nothing fits a budget.
    """
    model, device = pipeline.model, pick_device(pipeline.device)
    card = as_hardware(hardware, device)
    subject = _subject(pipeline, job, card, device)
    stages = [*model.text_stages]
    placed = job.model(model)
    left_out = set(placed.request_roles.optional) - set(job.given.sources)
    stages += [stage for stage in placed.request_stages if stage.name not in left_out]

    def others(policies: Sequence[MemoryPolicy]) -> Sequence[Other]:
        decoder = decoder_bytes(model, policies)
        told = (
            f"weights of {size(decoder)} in float32; what it works on comes on top" if decoder else "not on this disk"
        )
        return [*encoding(model, policies, stages), Other(name="decoding", device=decoder or 0, what=told)]

    name = str(subject.dtype).removeprefix("torch.")
    return plan_of(
        subject,
        pipeline.memory,
        title=f"{model.title}, generation, {name}, {job.steps} steps",
        hardware=card,
        others=others,
        base=PROGRAM + waiting(subject, len(model.experts), pipeline.memory),
    )


def waiting(subject: Subject, experts: int, policies: Sequence[MemoryPolicy]) -> int:
    """Return about how many bytes of host memory so many experts take that wait for their turn; 0 for a single one.

    A policy that changes weights, or a file that is quantised, counts as a byte for each number.
    """
    if experts == 1:
        return 0
    narrow = bool(subject.stored) or any(policy.changes_weights for policy in policies)
    width = 1 if narrow else subject.dtype.itemsize
    return experts * width * sum(parameter.numel() for parameter in subject.model.parameters())


def settled(pipeline: Pipeline[Architecture], job: Job, device: torch.device) -> tuple[MemoryPolicy, ...]:
    """Return a pipeline's memory policies with what they leave open decided for a job; as they are if nothing is.

    Raises:
        ConfigError: There is no budget, or nothing fits it.
    """
    context = FitContext.of(pipeline.model, training=False)
    known = context if context.blocks is not None else attrs.evolve(context, blocks=2)
    if not any(is_open(policy, known) for policy in pipeline.memory):
        return pipeline.memory
    card = Hardware.here(device)
    subject = _subject(pipeline, job, card, device)
    return resolved(
        pipeline.memory, subject.context, Forecast(subject).peak, memory=None if card is None else card.memory
    )


def drawing(
    architecture: Architecture,
    job: Job,
    *,
    context: FitContext,
    dtype: torch.dtype,
    accelerated: bool,
) -> Subject:
    """Return a model at work on one picture or clip."""
    import torch

    denoiser, expert = architecture.denoiser(), architecture.experts[0]
    empty, stored = denoiser.empty(expert), denoiser.stored(expert)
    latent = architecture.geometry.latent_shape(job.size, job.frames)
    entry = {name: Shape(sizes=sizes, dtype=torch.float32) for name, sizes in denoiser.entry(empty, latent).items()}
    asks = job.steps * len(job.texts)
    return Subject(
        model=empty,
        keys=architecture.keys,
        context=opened(context, empty, stored),
        dtype=dtype,
        buckets=(
            Bucket(
                name=f"{job.size[0]}x{job.size[1]}, {job.frames} frames",
                tokens=architecture.geometry.tokens(latent),
                predict=prediction(denoiser, entry, items=1, dtype=dtype) if entry else None,
            ),
        ),
        float32=denoiser.float32,
        stored=stored,
        passes=asks,
        accelerated=accelerated,
    )


def _subject(pipeline: Pipeline[Architecture], job: Job, hardware: Hardware | None, device: torch.device) -> Subject:
    accelerated = hardware is not None or device.type != "cpu"
    return drawing(
        pipeline.model,
        job,
        context=fit_context(pipeline.model, pipeline.memory),
        dtype=planned_dtype(pipeline.dtype, device, accelerated=accelerated),
        accelerated=accelerated,
    )


def planned_dtype(name: str | None, device: torch.device, *, accelerated: bool) -> torch.dtype:
    """Return what a model computes in on the device that is planned for, be it this machine's or not."""
    import torch

    return torch.bfloat16 if name is None and accelerated else pick_dtype(name, device)
