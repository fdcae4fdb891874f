"""Running a model without its weights: fake tensors of a shape and a type, and kernels as an accelerator has them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

from musubi.memory.formats import NF4, WeightFormat
from musubi.memory.live import LiveBytes
from musubi.memory.quant_linear import QuantLinear

_IN_FLOAT32 = frozenset(
    (
        *("exp", "expm1", "log", "log1p", "log2", "log10", "pow", "__pow__", "reciprocal", "rsqrt", "softplus"),
        *("layer_norm", "group_norm", "norm", "softmax", "log_softmax", "sum", "prod", "cumsum", "cumprod"),
        *("logsumexp", "mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"),
    )
)
"""What CUDA's autocast computes in float32 and a CPU's does not: ATen/autocast_mode.h of torch 2.13."""

Function = Callable[..., Any]


@contextmanager
def faked(model: nn.Module, *, like: str) -> Generator[None]:
    """Let the parameters and buffers of a model on the meta device be fake tensors of a CPU, for good.

    Inside the ``with`` everything that is made is fake, too. Fake tensors of a GPU would need a GPU. Quantised matrices
    take what they take on a device of type ``like``.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in model.modules():
            if isinstance(module, QuantLinear):
                module.format = _Restored(module.format, whole=like != "cpu")
            for name, parameter in module.named_parameters(recurse=False):
                if _empty(parameter):
                    made = torch.empty(parameter.shape, dtype=parameter.dtype)
                    setattr(module, name, nn.Parameter(made, requires_grad=parameter.requires_grad))
            for name, buffer in module.named_buffers(recurse=False):
                if _empty(buffer):
                    setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
        yield


def _empty(tensor: Tensor) -> bool:
    """Tell whether a tensor has no content: on the meta device, or a fake one of an earlier time."""
    return tensor.is_meta or isinstance(tensor, FakeTensor)


@contextmanager
def counted(given: Iterable[Tensor], *, like: str) -> Generator[LiveBytes]:
    """Count what happens inside the ``with`` as it would on a device of type ``like``; ``given`` does not count."""
    live = LiveBytes(given)
    with live, kernels(like):
        yield live


def kernels(like: str) -> AbstractContextManager[object]:
    """Return a ``with`` block in which operations keep and return what they do on a device of type ``like``."""
    return nullcontext() if like == "cpu" else _Kernels()


@attrs.frozen
class _Restored(WeightFormat):
    """A format of which only the bytes of its way back matter, of all at once or, on a CPU, of small pieces."""

    format: WeightFormat
    whole: bool

    def dequantise(self, stored: Tensor, scale: Tensor | None, *, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        if isinstance(self.format, _Restored):
            return self.format.dequantise(stored, scale, shape=shape, dtype=dtype)
        if scale is None or isinstance(self.format, NF4):
            return stored.new_empty(shape, dtype=dtype)
        widened = stored.new_empty(shape if self.whole else (0,), dtype=scale.dtype)
        full = widened.new_empty(shape)
        del widened
        return full.to(dtype)

    def quantise(self, weight: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.format.quantise(weight)

    def empty(
        self, shape: tuple[int, int], *, dtype: torch.dtype, device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        return self.format.empty(shape, dtype=dtype, device=device)


class _Kernels(TorchFunctionMode):
    """Do as an accelerator does where it differs from a CPU: in what autocast computes in float32, and in one kernel.

    Attention is the same fused kernel in both, by what it keeps. A mode is not active in what a backward calls, so
    that a forward which is computed again there has to enter it anew.
    """

    def __torch_function__(
        self, func: Function, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "rms_norm":
            return _normalised(*args, **named)
        if name in _IN_FLOAT32 and torch.is_autocast_enabled("cpu"):
            args = [_up(value) for value in args]
            named = {key: _up(value) for key, value in named.items()}
        return func(*args, **named)


def _normalised(input: Tensor, _: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:  # noqa: ARG001  # torch's names
    x = input.float() if torch.is_autocast_enabled("cpu") else input
    return cast(Tensor, _RMSNorm.apply(x, weight))  # type: ignore[no-untyped-call]


class _RMSNorm(torch.autograd.Function):
    """What the fused normalisation keeps: its input and a float32 number for each row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None) -> Tensor:
        rows = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
        ctx.save_for_backward(x, rows)
        ctx.weight = weight if weight is not None and weight.requires_grad else None
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, Tensor | None]:
        x = ctx.saved_tensors[0]
        return torch.empty_like(x), None if ctx.weight is None else torch.empty_like(ctx.weight)


def _up(value: Any) -> Any:
    low = isinstance(value, Tensor) and value.dtype in {torch.bfloat16, torch.float16}
    return value.float() if low else value


def as_on(like: str) -> Callable[[Function], Function]:
    """Return what makes a forward compute as on a device of type ``like``, also where backward calls it again."""

    def wrap(forward: Function) -> Function:
        def run(*args: Any, **named: Any) -> Any:
            with kernels(like):
                return forward(*args, **named)

        return run

    return wrap
