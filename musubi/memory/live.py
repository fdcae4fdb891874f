"""Bytes that are alive on a device and operations done there, counted while a model runs, on fake tensors or real."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import attrs
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_EIGHT_BIT = frozenset(("_int_mm", "_scaled_mm"))
"""Products of 8-bit matrices, which have their own peak on a device."""


def _product(first: Tensor, second: Tensor, **_: object) -> int:
    """Return 2 for each multiplication in a product of two matrices."""
    return 2 * first.numel() * second.shape[-1]


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> int:
    """Return 2 for each multiplication of queries by keys, and of weights by values."""
    return 2 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: object, **___: object) -> int:
    """Return what five products take where forward has two: the weights are computed again."""
    return _attention(query, key, value) * 5 // 2


_FORMULAS: Mapping[str, Callable[..., int]] = MappingProxyType(
    {
        "_int_mm": _product,
        "_scaled_dot_product_flash_attention_for_cpu": _attention,
        "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    }
)
"""Operations of kernels that torch has no formula for."""


@attrs.frozen(kw_only=True)
class Window:
    """A part of a run: bytes alive when it began and ended, the most in between, and its floating-point operations.

    ``eight_bit`` are operations on 8-bit numbers; they are not among ``flops``. ``gradients`` are bytes of gradients of
    parameters that came up, which are counted here and nowhere else.
    """

    start: int
    end: int
    peak: int
    flops: int = 0
    eight_bit: int = 0
    gradients: int = 0

    @property
    def rise(self) -> int:
        """Bytes of the peak above the beginning."""
        return self.peak - self.start

    @property
    def change(self) -> int:
        """Bytes that are alive at the end beyond those at the beginning."""
        return self.end - self.start


class LiveBytes(TorchDispatchMode):
    """Count, inside its ``with``, every storage that an operation makes until it is freed; ``given`` ones do not count.

    What autograd keeps counts as long as it is kept, once for each storage. Memory that a kernel uses inside itself is
    not seen. ``take`` ends a window and begins the next.
    """

    def __init__(self, given: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._given = {_key(tensor.untyped_storage()) for tensor in given}
        self._alive: dict[int, tuple[weakref.ref[UntypedStorage], int]] = {}
        self._now = self._start = self._peak = 0
        self._flops = self._eight_bit = self._gradients = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        result = func(*args, **named)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._hold(leaf.untyped_storage())
        self._count(func._overloadpacket, args, named, result)
        return result

    def put_away(self, parameter: Tensor) -> None:
        """Count a parameter's gradient apart, and forget it."""
        gradient, parameter.grad = parameter.grad, None
        self._gradients += 0 if gradient is None else gradient.untyped_storage().nbytes()

    def take(self) -> Window:
        """Return what happened since the last call, or since the beginning."""
        window = Window(
            start=self._start,
            end=self._now,
            peak=self._peak,
            flops=self._flops,
            eight_bit=self._eight_bit,
            gradients=self._gradients,
        )
        self._start = self._peak = self._now
        self._flops = self._eight_bit = self._gradients = 0
        return window

    def _count(self, packet: Any, args: tuple[Any, ...], named: Mapping[str, Any], result: Any) -> None:
        name = packet.__name__
        formula: Callable[..., int] | None = _FORMULAS.get(name) or flop_registry.get(packet)
        flops = 0 if formula is None else formula(*args, **named, out_val=result)
        if name in _EIGHT_BIT:
            self._eight_bit += flops
        else:
            self._flops += flops

    def _hold(self, storage: UntypedStorage) -> None:
        key = _key(storage)
        if key in self._given or key in self._alive:
            return
        size = storage.nbytes()
        self._alive[key] = (weakref.ref(storage, partial(self._free, key)), size)
        self._now += size
        self._peak = max(self._peak, self._now)

    def _free(self, key: int, _: weakref.ref[UntypedStorage]) -> None:
        self._now -= self._alive.pop(key)[1]


def _key(storage: UntypedStorage) -> int:
    """Return what tells a storage from others that are alive; fake ones have no address of data."""
    key: int = storage._cdata  # pyright: ignore[reportPrivateUsage]
    return key
