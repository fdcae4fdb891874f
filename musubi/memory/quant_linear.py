"""A frozen Linear that keeps its weight in fewer bits and computes in the dtype of its input."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musubi.memory.eight_bit import Compute, EightBitProduct, divisible
from musubi.memory.formats import FP8, WeightFormat


class QuantLinear(nn.Linear):
    """Hold ``weight`` in a format's bits and its ``scale`` as plain frozen parameters; the bias is as it was.

    Each forward dequantises for the length of one matrix product, and so does each backward: autograd keeps references
    to ``weight`` and ``scale``, never the dequantised copy. With ``compute`` the product itself is done in 8 bits,
    forward and backward. Gradients reach the input only. Loaders, block swap and hooks see an ordinary ``nn.Linear``
    with one parameter more; ``scale`` is None where the format has none.
    """

    bias: nn.Parameter | None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]
    scale: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        format: WeightFormat | None = None,
        compute: Compute | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.format = format or FP8()
        self.compute = compute
        self.full_dtype = self.weight.dtype
        shape = out_features, in_features
        self._keep(*self.format.empty(shape, dtype=self.full_dtype, device=self.weight.device))
        if self.bias is not None:
            self.bias.requires_grad_(False)

    @classmethod
    def of(
        cls, linear: nn.Linear, *, format: WeightFormat | None = None, compute: Compute | None = None
    ) -> QuantLinear:
        """Return the quantised form of a Linear; one on the meta device gives an empty one, of the same sizes."""
        bias = dict(linear.named_parameters(recurse=False)).get("bias")
        made = cls(
            linear.in_features,
            linear.out_features,
            bias=bias is not None,
            format=format,
            compute=compute,
            device=linear.weight.device,
            dtype=linear.weight.dtype,
        )
        if not linear.weight.is_meta:
            made._keep(*made.format.quantise(linear.weight.detach()))
            made.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        return made.train(linear.training)

    def _keep(self, stored: Tensor, scale: Tensor | None) -> None:
        self.weight = nn.Parameter(stored, requires_grad=False)
        self.register_parameter("scale", None if scale is None else nn.Parameter(scale, requires_grad=False))

    def dequantised(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the weight (out, in) in ``dtype``, or in the one it had before it was quantised."""
        return self.format.dequantise(
            self.weight, self.scale, shape=(self.out_features, self.in_features), dtype=dtype or self.full_dtype
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input @ weight.T + bias`` in the autocast dtype where autocast is on, else in the input's."""
        if input.dtype.itemsize == 1:
            raise TypeError(
                f"a QuantLinear got numbers of type {input.dtype}: rounded to the type of its stored weight?"
            )
        dtype = _compute_dtype(input)
        bias = None if self.bias is None else self.bias.to(dtype)
        value = input.to(dtype)
        result: Tensor
        if self.compute is not None and divisible(self.weight):
            result = EightBitProduct.apply(value, self.weight, self.scale, self.compute)  # type: ignore[no-untyped-call]
            return result if bias is None else result + bias
        shape = self.out_features, self.in_features
        result = _Product.apply(value, self.weight, self.scale, bias, self.format, shape)  # type: ignore[no-untyped-call]
        return result


def _compute_dtype(value: Tensor) -> torch.dtype:
    kind = value.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else value.dtype


class _Product(torch.autograd.Function):
    """``F.linear`` with a weight that is dequantised again in backward."""

    @staticmethod
    def forward(  # noqa: PLR0917  # autograd hands arguments on by position
        ctx: Any,
        value: Tensor,
        weight: Tensor,
        scale: Tensor | None,
        bias: Tensor | None,
        format: WeightFormat,
        shape: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.format, ctx.shape = format, shape
        with torch.autocast(value.device.type, enabled=False):
            return F.linear(value, format.dequantise(weight, scale, shape=shape, dtype=value.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (gradient,) = grad_outputs
        weight, scale = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            full = ctx.format.dequantise(weight, scale, shape=ctx.shape, dtype=gradient.dtype)
            return gradient @ full, None, None, None, None, None
