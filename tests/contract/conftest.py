from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from musubi.architecture import Architecture, Codec, Denoiser, Models, Size
from musubi.batch import Batch, Entry, Sample, collate
from tests.contract.kinds import TINY

CPU = torch.device("cpu")
SIZE, CAPTIONS = (64, 32), ("a red fox", "a blue fox walks through the snow", "")


@attrs.define(kw_only=True, eq=False)
class Running:
    """A small architecture with everything loaded once."""

    spec: Architecture
    codec: Codec
    models: Models
    denoiser: Denoiser[Any]
    model: nn.Module

    @property
    def frames(self) -> int:
        return 5 if self.spec.geometry.video else 1

    def samples(self, captions: Sequence[str] = CAPTIONS, *, size: Size = SIZE, seed: int = 0) -> list[Sample]:
        return [self._sample(caption, size, seed + i) for i, caption in enumerate(captions)]

    def entries(self, stage: str, samples: Sequence[Sample]) -> list[Entry]:
        (chosen,) = (s for s in self.spec.stages if s.name == stage)
        return self.codec.encode(chosen, {c: self.models[c] for c in chosen.components}, samples)

    @cached_property
    def usual(self) -> Batch:
        return self.batch(self.samples())

    def batch(self, samples: Sequence[Sample]) -> Batch:
        stages = [self.entries(stage.name, samples) for stage in self.spec.stages]
        merged = [
            {k: t for entry in entries for k, t in entry.tensors.items()} for entries in zip(*stages, strict=True)
        ]
        return collate(merged, items=[s.name for s in samples], bucket="test")

    def velocity(self, model: nn.Module, x: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        with torch.no_grad():
            return self.denoiser.velocity(model, x, sigma, self.denoiser.conditions(batch))

    def _sample(self, caption: str, size: Size, seed: int) -> Sample:
        generator = torch.Generator().manual_seed(seed)

        def picture(frames: int) -> Tensor:
            return torch.randint(0, 256, (frames, size[1], size[0], 3), dtype=torch.uint8, generator=generator)

        controls = {role: [picture(1)] for role in self.spec.roles.required}
        return Sample(name=f"item {seed}", caption=caption, pixels=picture(self.frames), controls=controls)


@pytest.fixture(scope="session", params=list(TINY))
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Running:
    """Return every runnable architecture in turn, small and loaded."""
    torch.set_num_threads(1)  # these models are so small that threads only wait for one another
    spec = TINY[request.param](tmp_path_factory.mktemp(request.param))
    codec, denoiser = spec.codec(), spec.denoiser()
    components = dict.fromkeys(c for stage in spec.stages for c in stage.components)
    return Running(
        spec=spec,
        codec=codec,
        models={c: codec.load(c, device=CPU, dtype=torch.float32) for c in components},
        denoiser=denoiser,
        model=denoiser.load(spec.experts[0], device=CPU, dtype=torch.float32),
    )


@pytest.fixture
def noisy(running: Running) -> tuple[Tensor, Tensor, Batch]:
    """Return latents halfway to noise, their noise levels and the batch they belong to."""
    batch = running.usual
    clean = running.denoiser.clean(batch)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    return 0.5 * clean + 0.5 * noise, torch.tensor([0.2, 0.5, 0.9]), batch
