"""Measuring the loss on held-out items, on noise and noise levels that are the same every time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from musubi.architecture import Architecture, Denoiser
from musubi.batch import Batch
from musubi.cache.cache import Cache
from musubi.core.control import CancelToken
from musubi.core.events import Band, Validated
from musubi.inference.engine import draw_noise, evaluating
from musubi.training.heldout import HeldOutBatch, held_out
from musubi.training.validation import Best, Validation


class LossAt(Protocol):
    """What is needed of a training objective: the loss of items at a noise level that is given."""

    @property
    def denoiser(self) -> Denoiser[Any]:
        """What makes clean latents of a batch."""
        ...

    def loss_at(self, model: nn.Module, batch: Batch, sigma: Tensor, noise: Tensor) -> Tensor:
        """Return each item's loss, float32 of (batch,), without the weight of its noise level or its own.

        ``sigma`` is float32 of (batch,), ``noise`` like the clean latents, on their device. Weights say how much the
        items and levels count while learning; left out, losses compare between runs that weigh them differently. A
        mask does count: it says what the task is.
        """
        ...


class Peers(Protocol):
    """What is needed of the processes of a run."""

    @property
    def rank(self) -> int:
        """Which one this is."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def device(self) -> torch.device:
        """Where this one computes."""
        ...

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the means over all processes, which ask for them at once."""
        ...


class Validator:
    """The held-out items of a run and how their loss is measured; opened before any weights are loaded.

    Raises:
        CacheError: The cache is not built, holds out nothing, or lacks a file.
    """

    def __init__(
        self, spec: Validation, cache: Cache[Architecture], peers: Peers, *, batch_size: int | None = None
    ) -> None:
        self._spec, self._peers = spec, peers
        self._batches = held_out(cache, items=spec.items, seed=spec.seed, batch_size=batch_size)

    def measure(
        self,
        objective: LossAt,
        model: nn.Module,
        *beside: nn.Module,
        step: int,
        best: Best | None = None,
        cancel: CancelToken | None = None,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Validated | None:
        """Return the loss and that of every band, the same on all processes; None if it was cancelled on one of them.

        Every item and level counts alike. Global random numbers are neither used nor moved; ``model`` and what lies
        ``beside`` it are in evaluation mode meanwhile, and as before afterwards.

        Args:
            objective: What measures a batch.
            model: The loaded network.
            beside: Modules with dropout that are attached to the model without being part of it.
            step: The optimiser steps taken so far.
            best: The best measurement before this one.
            cancel: Looked at before every batch.
            on_batch: Hears after every batch how many are done, and how many there are.
        """
        with _undisturbed(self._peers.device, model, *beside):
            totals = self._totals(objective, model, cancel, on_batch)
        if totals is None:
            return None
        *sums, measured = self._peers.mean(totals)
        losses = [total / measured for total in sums]
        bands = zip(self._spec.bands, losses, strict=True)
        loss = sum(losses) / len(losses)
        return Validated(
            step=step,
            loss=loss,
            bands=tuple(Band(low=low, high=high, loss=one) for (low, high), one in bands),
            best=math.isfinite(loss) and (best is None or loss < best.loss),
        )

    def _totals(
        self,
        objective: LossAt,
        model: nn.Module,
        cancel: CancelToken | None,
        on_batch: Callable[[int, int], None] | None,
    ) -> list[float] | None:
        """Return the sum of this process's losses at each level, and how many entries they are.

        All processes do equally many forward passes, so that models divided over them work: what is left to do in the
        last round is done by all, and counts once.
        """
        sums, measured = [0.0] * len(self._spec.sigmas), 0
        rank, count, batches = self._peers.rank, self._peers.count, self._batches
        for start in range(0, len(batches), count):
            if self._peers.mean([float(cancel is not None and cancel.cancelled)])[0] > 0:
                return None
            own = batches[min(start + rank, len(batches) - 1)]
            losses = self._losses(objective, model, own)
            if start + rank < len(batches):
                sums = [total + loss for total, loss in zip(sums, losses, strict=True)]
                measured += len(own.units)
            if on_batch is not None:
                on_batch(min(start + count, len(batches)), len(batches))
        return [*sums, float(measured)]

    def _losses(self, objective: LossAt, model: nn.Module, own: HeldOutBatch) -> list[float]:
        """Return the sum of a batch's losses at each level."""
        batch = own.read().to(str(self._peers.device))
        shape = objective.denoiser.clean(batch).shape[1:]
        sums: list[float] = []
        for index, level in enumerate(self._spec.sigmas):
            noise = draw_noise(shape, [_seed(self._spec.seed, label, index) for label in own.labels])
            sigma = torch.full((len(batch),), level, dtype=torch.float32, device=self._peers.device)
            losses = objective.loss_at(model, batch, sigma, noise.to(self._peers.device))
            sums.append(float(losses.cpu().double().sum()))
        return sums


def _seed(seed: int, label: str, index: int) -> int:
    text = f"{seed}/{index}/{label}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


@contextmanager
def _undisturbed(device: torch.device, *modules: nn.Module) -> Generator[None]:
    """Compute without gradients and dropout, and leave the global random numbers as they are."""
    devices = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), evaluating(*modules):
        yield
