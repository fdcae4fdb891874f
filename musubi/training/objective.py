"""What a step minimises: the flow-matching error of one batch, the same for every architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Denoiser, Geometry
from musubi.batch import LOSS_MASK, Batch
from musubi.noise import flow
from musubi.noise.loss import MSE, Loss
from musubi.noise.timesteps import TimestepSampler
from musubi.noise.weighting import Weighting

Teaching = Callable[[], AbstractContextManager[None]]
"""Returns a ``with`` block in which the model predicts what it is to be taught."""


@attrs.frozen(kw_only=True)
class Measured:
    """The loss of a batch (a scalar with gradients) and the noise levels it was measured at, float32 of (batch,)."""

    loss: Tensor
    sigma: Tensor


@attrs.frozen(kw_only=True, eq=False)
class Drawn:
    """What a batch is trained on: its clean latents, and noise and a noise level for each item, all on one device."""

    clean: Tensor
    noise: Tensor
    sigma: Tensor

    def select(self, items: Sequence[int]) -> Drawn:
        """Return the draws of some items, by their places."""
        places = list(items)
        return Drawn(clean=self.clean[places], noise=self.noise[places], sigma=self.sigma[places])


@attrs.frozen(kw_only=True)
class Objective:
    """Draw noise and a noise level for each item, ask for the velocity, compare with ``noise - clean``.

    A batch's ``loss_mask`` and the items' own weights multiply the error. Everything is float32 but the inside of the
    network, which computes in ``dtype``. Random numbers are drawn on the CPU: a run is the same on every device.
    """

    denoiser: Denoiser[Any]
    geometry: Geometry
    timesteps: TimestepSampler
    weighting: Weighting
    dtype: torch.dtype
    loss: Loss = attrs.field(factory=MSE)

    def measure(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        generator: torch.Generator,
        shares: Tensor | None = None,
        teaching: Teaching | None = None,
    ) -> Measured:
        """Return the loss of one batch that already lies on the model's device.

        Args:
            model: The denoiser's network with what is trained on it.
            batch: Items of one batch key.
            generator: Draws noise and noise levels; of the CPU.
            shares: Where in their distribution the noise levels lie, in [0, 1], instead of drawn ones.
            teaching: Given, the target is not the data but what the model predicts inside this block.
        """
        drawn = self.draw(batch, generator=generator, shares=shares)
        return Measured(loss=self.error(model, batch, drawn, teaching=teaching), sigma=drawn.sigma)

    def draw(self, batch: Batch, *, generator: torch.Generator, shares: Tensor | None = None) -> Drawn:
        """Draw noise and noise levels for a batch, as ``measure`` does."""
        clean = self.denoiser.clean(batch).float()
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        return Drawn(clean=clean, noise=noise, sigma=self._levels(clean, generator, shares).to(clean.device))

    def error(self, model: nn.Module, batch: Batch, drawn: Drawn, *, teaching: Teaching | None = None) -> Tensor:
        """Return the loss of a batch at what was drawn for it, a scalar with gradients."""
        conditions, sigma = self.denoiser.conditions(batch), drawn.sigma
        x = flow.mix(drawn.clean, drawn.noise, sigma)
        target = drawn.noise - drawn.clean
        if teaching is not None:
            with torch.no_grad(), teaching():
                target = self._predict(model, x, sigma, conditions)
        predicted = self._predict(model, x, sigma, conditions)
        weight = _weight(self.weighting.weights(sigma), batch)
        return flow.error(predicted, target, weight=weight, mask=batch.stacked.get(LOSS_MASK), loss=self.loss)

    def loss_at(self, model: nn.Module, batch: Batch, sigma: Tensor, noise: Tensor) -> Tensor:
        """Return each item's loss, float32 of (batch,), at given noise levels and noise, without any weight."""
        clean = self.denoiser.clean(batch).float()
        predicted = self._predict(model, flow.mix(clean, noise, sigma), sigma, self.denoiser.conditions(batch))
        return self.loss.per_item(predicted, noise - clean, mask=batch.stacked.get(LOSS_MASK))

    def _levels(self, clean: Tensor, generator: torch.Generator, shares: Tensor | None) -> Tensor:
        tokens = self.geometry.tokens(clean.shape)
        if shares is not None:
            return self.timesteps.place(shares, tokens=tokens)
        return self.timesteps.sample(len(clean), tokens=tokens, generator=generator)

    def _predict(self, model: nn.Module, x: Tensor, sigma: Tensor, conditions: object) -> Tensor:
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.denoiser.velocity(model, x, sigma, conditions).float()


def _weight(levels: Tensor, batch: Batch) -> Tensor:
    """Return what each item's loss is multiplied by: for its noise level, and for itself."""
    if all(weight == 1 for weight in batch.weights):
        return levels
    return levels * torch.tensor(batch.weights, dtype=torch.float32, device=levels.device)
