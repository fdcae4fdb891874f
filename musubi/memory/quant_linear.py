"""A frozen Linear that stores its weight in 8 bits and computes in the dtype of its input."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musubi.memory import fp8
from musubi.memory.fp8 import Mode


class QuantLinear(nn.Linear):
    """Hold ``weight`` (out, in) in float8 and ``scale`` as two plain frozen parameters; the bias is as it was.

    Each forward dequantises for the length of one matrix product, and so does each backward: autograd keeps references
    to ``weight`` and ``scale``, never the dequantised copy. Gradients reach the input only. Loaders, block swap and
    hooks see an ordinary ``nn.Linear`` with one parameter more.
    """

    bias: nn.Parameter | None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        mode: Mode = "block",
        block: int = 64,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        shape = fp8.scale_shape(self.weight.shape, mode=mode, block=block)
        stored = torch.empty_like(self.weight, dtype=torch.float8_e4m3fn)
        self.weight = nn.Parameter(stored, requires_grad=False)
        self.scale = nn.Parameter(torch.empty(shape, device=device, dtype=dtype), requires_grad=False)
        if self.bias is not None:
            self.bias.requires_grad_(False)

    @classmethod
    def of(cls, linear: nn.Linear, *, mode: Mode = "block", block: int = 64) -> QuantLinear:
        """Return the quantised form of a Linear; one on the meta device gives an empty one, of the same sizes."""
        bias = dict(linear.named_parameters(recurse=False)).get("bias")
        made = cls(
            linear.in_features,
            linear.out_features,
            bias=bias is not None,
            mode=mode,
            block=block,
            device=linear.weight.device,
            dtype=linear.weight.dtype,
        )
        if not linear.weight.is_meta:
            made.weight.data, made.scale.data = fp8.quantise(linear.weight.detach(), mode=mode, block=block)
            made.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        return made.train(linear.training)

    def dequantised(self) -> Tensor:
        """Return the weight in the dtype it had before it was quantised."""
        return fp8.dequantise(self.weight, self.scale)

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input @ weight.T + bias`` in the autocast dtype where autocast is on, else in the input's."""
        dtype = _compute_dtype(input)
        bias = None if self.bias is None else self.bias.to(dtype)
        result: Tensor = _Product.apply(input.to(dtype), self.weight, self.scale, bias)  # type: ignore[no-untyped-call]
        return result


def _compute_dtype(value: Tensor) -> torch.dtype:
    kind = value.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype


class _Product(torch.autograd.Function):
    """``F.linear`` with a weight that is dequantised again in backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        with torch.autocast(value.device.type, enabled=False):
            return F.linear(value, fp8.dequantise(weight, scale).to(value.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = grad_outputs
        weight, scale = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            return gradient @ fp8.dequantise(weight, scale).to(gradient.dtype), None, None, None
