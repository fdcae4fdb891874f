"""The toy architecture with a codec that writes down what it does, and helpers to look at caches."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import attrs
import torch
from torch import nn

from musubi.architecture import Models, Prepare, Stage, WeightHook
from musubi.batch import Entry, Sample
from musubi.cache.cache import Cache
from musubi.core.errors import DataError, Issue
from musubi.data.dataset import Dataset
from musubi.testing.toy import Toy, ToyCodec


@attrs.frozen(kw_only=True)
class CountingToy(Toy):
    """A toy that notes every component loaded and every item encoded, e.g. ``load vae`` and ``latents cat``.

    With ``controls`` its latents are made of conditioning pictures, too; ``parts`` is how many entries it makes of each
    picture or clip; ``room`` how many samples it encodes at once before it is out of memory.
    """

    kind: ClassVar[str] = "counting_toy"
    controls: bool = False
    parts: int = 1
    room: int = 1000
    log: list[str] = attrs.field(factory=list, eq=False, repr=False)

    @property
    def stages(self) -> tuple[Stage, ...]:
        latents, text = super().stages
        return (attrs.evolve(latents, reads=("pixels", "controls")) if self.controls else latents, text)

    def codec(self) -> ToyCodec:
        return CountingCodec(toy=self, log=self.log, parts=self.parts, room=self.room)


@attrs.frozen
class CountingCodec(ToyCodec):
    """``ToyCodec`` with a diary; refuses to hold two components at once.

    Captions that contain BROKEN become numbers that are none; a batch with a caption that contains REFUSED is refused.
    """

    log: list[str]
    parts: int = 1
    room: int = 1000
    held: list[weakref.ref[nn.Module]] = attrs.field(factory=list)

    def load(
        self,
        component: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        assert not any(reference() is not None for reference in self.held), "an earlier component is still in memory"
        self.log.append(f"load {component}")
        model = super().load(component, device=device, dtype=dtype)
        self.held.append(weakref.ref(model))
        return model

    def encode(self, stage: Stage, models: Models, samples: Sequence[Sample]) -> list[Entry]:
        self.log.extend(f"{stage.name} {sample.name}" for sample in samples)
        if len(samples) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory: too many at once")
        if any("REFUSED" in sample.caption for sample in samples):
            raise DataError("cannot encode", [Issue(samples[0].name, "refused")])
        entries = super().encode(stage, models, samples)
        made = [_broken(e) if "BROKEN" in s.caption else e for s, e in zip(samples, entries, strict=True)]
        parts = self.parts if stage.name == "latents" else 1
        return [attrs.evolve(e, tensors={n: t + i for n, t in e.tensors.items()}) for e in made for i in range(parts)]


def _broken(entry: Entry) -> Entry:
    return attrs.evolve(entry, tensors={name: tensor * float("nan") for name, tensor in entry.tensors.items()})


_PASSING = frozenset({".files.json", ".lock"})


def build(folder: Path, dataset: Dataset, **options: object) -> list[str]:
    """Build a cache with the counting toy and return its diary."""
    model = CountingToy()
    Cache(folder, model=model).build(dataset, progress=False, **options)  # type: ignore[arg-type]
    return model.log


def contents(folder: Path) -> dict[str, bytes]:
    """Return everything in a cache folder but the memory of source files, which holds times, and the lock."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in _PASSING}
