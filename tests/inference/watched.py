"""A toy that knows which of its models are in memory."""

from __future__ import annotations

import weakref

import attrs
import torch
from torch import nn

from musubi.architecture import Expert, Prepare, WeightHook
from musubi.testing.toy import Toy, ToyCodec, ToyDenoiser


class Alive:
    """Which models are in memory at the moments when another one is loaded."""

    def __init__(self) -> None:
        self._models: list[tuple[str, weakref.ref[nn.Module]]] = []
        self.seen: list[tuple[str, ...]] = []

    def watch(self, name: str, model: nn.Module) -> nn.Module:
        self._models.append((name, weakref.ref(model)))
        self.seen.append(tuple(n for n, found in self._models if found() is not None))
        return model


@attrs.frozen
class WatchedCodec(ToyCodec):
    alive: Alive

    def load(
        self,
        component: str,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        return self.alive.watch(component, super().load(component, device=device, dtype=dtype))


@attrs.frozen
class WatchedDenoiser(ToyDenoiser):
    alive: Alive

    def load(
        self,
        expert: Expert,
        *,
        device: torch.device,
        dtype: torch.dtype,
        prepare: Prepare | None = None,
        on_weight: WeightHook | None = None,
    ) -> nn.Module:
        model = super().load(expert, device=device, dtype=dtype, prepare=prepare, on_weight=on_weight)
        return self.alive.watch("dit", model)


@attrs.frozen(kw_only=True)
class Watched(Toy):
    """A toy that knows which of its models are in memory."""

    alive: Alive = attrs.field(factory=Alive, eq=False)

    def codec(self) -> WatchedCodec:
        return WatchedCodec(self, self.alive)

    def denoiser(self) -> WatchedDenoiser:
        return WatchedDenoiser(self, self.alive)
