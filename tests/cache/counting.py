"""The toy architecture with a codec that writes down what it does, and helpers to look at caches."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import attrs
import torch
from torch import nn

from musubi.architecture import Models, Stage
from musubi.batch import Entry, Sample
from musubi.cache.cache import Cache
from musubi.data.dataset import Dataset
from musubi.testing.toy import Toy, ToyCodec


@attrs.frozen(kw_only=True)
class CountingToy(Toy):
    """A toy that notes every component loaded and every item encoded, e.g. ``load vae`` and ``latents cat``."""

    kind: ClassVar[str] = "counting_toy"
    log: list[str] = attrs.field(factory=list, eq=False, repr=False)

    def codec(self) -> ToyCodec:
        return CountingCodec(toy=self, log=self.log)


@attrs.frozen
class CountingCodec(ToyCodec):
    """``ToyCodec`` with a diary; refuses to hold two components at once, and captions that contain BROKEN."""

    log: list[str]
    held: list[weakref.ref[nn.Module]] = attrs.field(factory=list)

    def load(self, component: str, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
        assert not any(reference() is not None for reference in self.held), "an earlier component is still in memory"
        self.log.append(f"load {component}")
        model = super().load(component, device=device, dtype=dtype)
        self.held.append(weakref.ref(model))
        return model

    def encode(self, stage: Stage, models: Models, samples: Sequence[Sample]) -> list[Entry]:
        self.log.extend(f"{stage.name} {sample.name}" for sample in samples)
        entries = super().encode(stage, models, samples)
        if any("BROKEN" in sample.caption for sample in samples):
            return [attrs.evolve(e, tensors={n: t * float("nan") for n, t in e.tensors.items()}) for e in entries]
        return entries


def build(folder: Path, dataset: Dataset, **options: object) -> list[str]:
    """Build a cache with the counting toy and return its diary."""
    model = CountingToy()
    Cache(folder, model=model).build(dataset, progress=False, **options)  # type: ignore[arg-type]
    return model.log


def contents(folder: Path) -> dict[str, bytes]:
    """Return everything in a cache folder but the memory of source hashes, which holds times."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".hashes.json"}
