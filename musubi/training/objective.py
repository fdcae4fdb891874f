"""What a step minimises: the flow-matching error of one batch, the same for every architecture."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn

from musubi.architecture import Denoiser, Geometry
from musubi.batch import LOSS_MASK, Batch
from musubi.noise import flow
from musubi.noise.timesteps import TimestepSampler
from musubi.noise.weighting import Weighting


@attrs.frozen(kw_only=True)
class Measured:
    """The loss of a batch (a scalar with gradients) and the noise levels it was measured at, float32 of (batch,)."""

    loss: Tensor
    sigma: Tensor


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

    def measure(self, model: nn.Module, batch: Batch, *, generator: torch.Generator) -> Measured:
        """Return the loss of one batch that already lies on the model's device."""
        clean = self.denoiser.clean(batch).float()
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        tokens = self.geometry.tokens(clean.shape)
        sigma = self.timesteps.sample(len(clean), tokens=tokens, generator=generator).to(clean.device)
        conditions = self.denoiser.conditions(batch)
        with torch.autocast(clean.device.type, self.dtype, enabled=self.dtype != torch.float32):
            predicted = self.denoiser.velocity(model, flow.mix(clean, noise, sigma), sigma, conditions)
        weight = _weight(self.weighting.weights(sigma), batch)
        loss = flow.error(predicted.float(), noise - clean, weight=weight, mask=batch.stacked.get(LOSS_MASK))
        return Measured(loss=loss, sigma=sigma)


def _weight(levels: Tensor, batch: Batch) -> Tensor:
    """Return what each item's loss is multiplied by: for its noise level, and for itself."""
    if all(weight == 1 for weight in batch.weights):
        return levels
    return levels * torch.tensor(batch.weights, dtype=torch.float32, device=levels.device)
