"""Pictures and clips to conditions: the stages of a request, their components loaded once and freed again."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby, product

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Architecture, Asked, Geometry, Models, Stage
from musubi.inference.prompts import told_apart
from musubi.inference.request import Job
from musubi.memory.components import loaded, policies_within, release
from musubi.memory.policy import MemoryPolicy

Conditions = Mapping[str, Tensor]
"""Named tensors on the CPU without a batch dimension, as a cache entry has them."""


def read_given(job: Job, geometry: Geometry) -> Asked:
    """Decode a job's pictures and clips, and say at which sizes its control pictures are shown, if the job does.

    Raises:
        DataError: A file cannot be read.
        ConfigError: A clip is too short, or stands where a picture is wanted.
    """
    asked = job.given.read(job.size, job.frames)
    rule, pictures = job.control_size, asked.media.get("control", ())
    if rule is None:
        return asked
    own = [(picture.shape[2], picture.shape[1]) for picture in pictures]
    sizes = tuple(rule.choose(size, target=job.size, step=geometry.multiple) for size in own)
    return attrs.evolve(asked, control_sizes=sizes)


def digest(job: Job, asked: Asked) -> str:
    """Return what is equal for jobs whose conditions, their texts aside, are the same."""
    sizes = ",".join(map(str, asked.control_sizes))
    return f"{asked.size} {asked.frames} {job.single_frame} {sizes} {told_apart(asked.media)}"


def ask(
    architecture: Architecture,
    jobs: Sequence[Job],
    asked: Sequence[Asked],
    *,
    policies: Sequence[MemoryPolicy] = (),
    device: torch.device,
    dtype: torch.dtype,
) -> list[Conditions]:
    """Return the conditions of every job but its texts; without pictures and clips there are none.

    Every component is loaded once for all jobs and freed before this returns. ``policies`` are the pipeline's or
    trainer's: what they ask for in the components is done.
    """
    made: list[dict[str, Tensor]] = [{} for _ in jobs]
    models_of = [job.model(architecture) if one.media else None for job, one in zip(jobs, asked, strict=True)]
    stages = dict.fromkeys(stage for model in models_of if model is not None for stage in model.request_stages)
    for components, together in groupby(stages, key=lambda stage: stage.components):
        with _loaded(architecture, components, policies, device=device, dtype=dtype) as models:
            for stage, (index, model) in product(together, enumerate(models_of)):
                if model is not None and stage in model.request_stages:
                    made[index].update(_answer(model, stage, models, asked[index]))
        del models
        release(device)
    return list(made)


def _answer(model: Architecture, stage: Stage, models: Models, asked: Asked) -> Conditions:
    with torch.no_grad():
        return {name: tensor.cpu() for name, tensor in model.codec().ask(stage, models, asked).items()}


@contextmanager
def _loaded(
    architecture: Architecture,
    components: Sequence[str],
    policies: Sequence[MemoryPolicy],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Generator[Models]:
    """Load components for the length of a ``with``."""
    codec = architecture.codec()
    with ExitStack() as stack:
        models: dict[str, nn.Module] = {}
        for name in components:
            component = architecture.component(name)
            within = policies_within(policies, component)
            models[name] = stack.enter_context(loaded(codec, component, within, device=device, dtype=dtype))
        yield models
