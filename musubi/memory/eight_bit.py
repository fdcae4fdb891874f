"""Matrix products in 8 bits: of rows that are quantised as they come with a matrix that is quantised already.

Each row of the input gets its own scale. The matrix has a scale for each of its outputs, or one for all: then the same
stored numbers serve backward, too, with the scales multiplied into the gradient before that is quantised. The kernels
are given none of these scales: they are multiplied in here. Kernels that take a scale for each row compute the same
numbers, but do not exist for every GPU that has 8-bit units (pytorch issue 192707).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from musubi.core.errors import Issue

Compute = Literal["int8", "fp8"]
LARGEST = 127
_INT8_ROWS = 32
"""CUDA's int8 product wants more than 16 rows, and some versions of it 32."""

_MULTIPLE = 16
"""What both sides of a matrix have to be divisible by for CUDA's products."""

_AT_ONCE = 1 << 25
"""How many inputs or outputs, whichever are more, are in float32 at a time: 128 MB, however many rows there are."""


def divisible(weight: Tensor) -> bool:
    """Tell whether the kernels take a matrix (out, in) of this shape."""
    return all(side % _MULTIPLE == 0 for side in weight.shape)


def device_issues(device: torch.device, compute: Compute) -> Iterable[Issue]:
    """Yield that a device cannot multiply in this type, if so."""
    if device.type == "cpu":
        return
    needed = (8, 9) if compute == "fp8" else (7, 5)
    found = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if found is None or found < needed:
        what = f"compute capability {found[0]}.{found[1]}" if found else device.type
        message = f"{compute} products need CUDA of compute capability {needed[0]}.{needed[1]}, this is {what}"
        yield Issue("compute", message, 'leave it out: compute="weights" runs everywhere')


class EightBitProduct(torch.autograd.Function):
    """``value @ weight.T`` in 8 bits, and its gradient too; keeps references to ``weight`` and ``scale``."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, scale: Tensor, compute: Compute) -> Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.compute = compute
        return product(value, weight.t(), compute, after=_as_row(scale))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = grad_outputs
        weight, scale = ctx.saved_tensors
        return product(gradient, weight, ctx.compute, before=_as_row(scale)), None, None, None


def product(
    value: Tensor, matrix: Tensor, compute: Compute, *, before: Tensor | None = None, after: Tensor | None = None
) -> Tensor:
    """Return ``value`` (..., k) times ``matrix`` (k, n), which is stored in 8 bits, as (..., n) of the value's type.

    ``before`` (k,) is multiplied into the value before that is quantised, ``after`` (n,) into the result.
    """
    rows = value.reshape(-1, value.shape[-1])
    # The kernels read the second matrix column by column; in backward it lies the other way.
    columns = matrix if matrix.stride(0) == 1 else matrix.t().contiguous().t()
    result = rows.new_empty(len(rows), matrix.shape[1])
    for part in _parts(len(rows), max(matrix.shape)):
        scaled = rows[part].float() if before is None else rows[part].float() * before
        sums = _int8(scaled, columns) if compute == "int8" else _fp8(scaled, columns)
        result[part] = sums if after is None else sums.mul_(after)
    return result.view(*value.shape[:-1], matrix.shape[1])


def _parts(rows: int, width: int) -> Iterable[slice]:
    """Return slices of the rows; a compiler, which keeps nothing in between, gets all of them at once."""
    if torch.compiler.is_compiling():
        return (slice(None),)
    step = max(1, _AT_ONCE // width)
    return (slice(start, start + step) for start in range(0, rows, step))


def _int8(rows: Tensor, columns: Tensor) -> Tensor:
    scale = _row_scale(rows, LARGEST)
    whole = (rows / scale).round_().to(torch.int8)
    count = len(whole)
    if count < _INT8_ROWS:
        whole = F.pad(whole, (0, 0, 0, _INT8_ROWS - count))
    sums: Tensor = torch.ops.aten._int_mm(whole, columns)
    return sums[:count].float().mul_(scale)


def _fp8(rows: Tensor, columns: Tensor) -> Tensor:
    limit = torch.finfo(columns.dtype).max
    scale = _row_scale(rows, limit)
    narrow = (rows / scale).clamp_(-limit, limit).to(columns.dtype)
    one = torch.ones((), device=rows.device)
    sums: Tensor = torch.ops.aten._scaled_mm(narrow, columns, one, one, out_dtype=torch.float32)
    return sums.mul_(scale)


def _row_scale(rows: Tensor, largest: float) -> Tensor:
    """Return what each row is divided by, float32 of shape (rows, 1); never zero."""
    return (rows.abs().amax(dim=1, keepdim=True) / largest).clamp_(min=torch.finfo(torch.float32).tiny)


def _as_row(scale: Tensor) -> Tensor:
    """Return scales of outputs, of shape (), (1,) or (out, 1), as float32 that broadcasts along the last axis."""
    return scale.float().reshape(-1)
