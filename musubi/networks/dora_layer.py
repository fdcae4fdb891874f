"""DoRA's layer: LoRA for the direction of every row of the weight, one number for its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from musubi.networks.dropouts import Dropouts
from musubi.networks.lora_layer import LoRALayer
from musubi.networks.weights import AdapterWeights, LoRAWeights


@runtime_checkable
class Quantised(Protocol):
    """A Linear that keeps its weight in another form and says what that stands for."""

    def dequantised(self) -> Tensor:
        """Return the weight (out, in)."""
        ...


class DoRALayer(LoRALayer):
    """``y = magnitude / |W + delta| * (W + delta) x``, norms by rows and constant in backward.

    The norms come from ``|W|`` and two thin products: the changed weight is never built.
    """

    def __init__(
        self,
        in_features: int,
        rows: Sequence[int],
        *,
        rank: int,
        alpha: float,
        dropouts: Dropouts | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(in_features, rows, rank=rank, alpha=alpha, dropouts=dropouts, device=device)
        self.magnitude = nn.Parameter(torch.ones(sum(rows), device=device))

    @classmethod
    def over(
        cls, group: Sequence[nn.Linear], *, rank: int, alpha: float, dropouts: Dropouts, device: str = "cpu"
    ) -> Self:
        """Return a layer whose magnitudes are the norms of the Linears' rows."""
        rows = tuple(linear.out_features for linear in group)
        layer = cls(group[0].in_features, rows, rank=rank, alpha=alpha, dropouts=dropouts, device=device)
        if device != "meta":
            # As forward takes them, bit for bit: a fresh layer changes nothing at all.
            norms = [_root(weight_of(linear).square().sum(dim=1)) for linear in group]
            layer.magnitude.data.copy_(torch.cat(norms))
        return layer

    def weights(self) -> LoRAWeights:
        """Return copies on the CPU, with the magnitudes as a column."""
        plain = super().weights()
        magnitude = self.magnitude.detach().to("cpu", copy=True).view(-1, 1)
        return LoRAWeights(plain.down, plain.up, plain.alpha, magnitude)

    @torch.no_grad()
    def load(self, weights: AdapterWeights) -> None:
        """Copy the weights in."""
        super().load(weights)
        assert isinstance(weights, LoRAWeights), "kinds were compared before"
        assert weights.magnitude is not None, "kinds were compared before"
        self.magnitude.copy_(weights.magnitude.reshape(-1))

    def _changed(self, linear: nn.Linear, x: Tensor, output: Tensor, part: int, weight: float) -> Tensor:
        """Go ``weight`` of the way to the changed weight's output.

        What is added is ``(s - 1) W x + s delta x`` with ``s = magnitude / |W + delta|``. ``s - 1`` is taken in
        float32: half precision would round away what magnitudes learn.
        """
        start, stop = self.span(part)
        scale = self.magnitude[start:stop] / self._norms(linear, part)
        change = (weight * (scale - 1)).to(output.dtype)
        direct = output if getattr(linear, "bias", None) is None else output - linear.bias.to(output.dtype)
        turned = self._up(part) * scale.unsqueeze(1)
        return self._raised(torch.addcmul(output, direct, change), self._round.product(x, self._hidden), turned, weight)

    @torch.no_grad()
    def _norms(self, linear: nn.Linear, part: int) -> Tensor:
        """Return the norms of the rows of W + delta: the root of |W|^2 + 2 W . delta + |delta|^2."""
        with torch.autocast(self.down.device.type, enabled=False):
            weight, down, up = weight_of(linear), self.down.float(), self._up(part).float() * (self.alpha / self.rank)
            square = weight.square().sum(dim=1) + 2 * (up * (weight @ down.T)).sum(dim=1)
            square += ((up @ (down @ down.T)) * up).sum(dim=1)
        return _root(square)


def _root(square: Tensor) -> Tensor:
    """Return the root of squared norms, never 0, so that it can be divided by."""
    return square.clamp(min=torch.finfo(torch.float32).tiny).sqrt()


@torch.no_grad()
def weight_of(linear: nn.Linear) -> Tensor:
    """Return a Linear's weight in float32; one that is kept quantised says itself what it stands for."""
    weight = linear.dequantised() if isinstance(linear, Quantised) else linear.weight
    return weight.detach().float()
