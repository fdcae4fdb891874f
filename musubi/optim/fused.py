"""Updating parameters while backward runs."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from musubi.core.errors import ConfigError, Issue
from musubi.optim.exact_state import parameters_of
from musubi.optim.separate import SeparateSteps


class FusedBackward:
    """Inside the ``with`` block, update each parameter as soon as its gradient is complete, and free the gradient.

    Every backward is then an optimiser step: nothing can be accumulated, and nothing averaged over processes.
    ``max_grad_norm`` limits the norm of every tensor's gradient by itself, as in the reference; None or 0 does not.

    Raises:
        ConfigError: The optimiser cannot update parameters one by one.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, max_grad_norm: float | None) -> None:
        if not isinstance(optimizer, SeparateSteps):
            hint = "build it from a spec with fused_backward=True: AdamW, AdamW8bit, Adafactor or Lion"
            raise ConfigError("fused backward", [Issue("optimizer", "updates all parameters together", hint)])
        self._optimizer, self._limit = optimizer, max_grad_norm
        self._handles: list[RemovableHandle] = []
        self._norms: list[Tensor] = []

    def __enter__(self) -> Self:
        for parameter in parameters_of(self._optimizer.param_groups):
            self._handles.append(parameter.register_post_accumulate_grad_hook(self._update))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def take_norm(self) -> float:
        """Return the norm that all gradients had together, before any limit, since this was last asked."""
        norms, self._norms = self._norms, []
        return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0

    def _update(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter), "hooks are on parameters"
        assert parameter.grad is not None, "the hook runs when there is a gradient"
        self._norms.append(_limited(parameter.grad, self._limit))
        self._optimizer.step_one(parameter)
        parameter.grad = None


@torch.no_grad()
def _limited(gradient: Tensor, limit: float | None) -> Tensor:
    """Scale a gradient down to a norm, as ``torch.nn.utils.clip_grad_norm_`` does, and return the norm that it had."""
    norm: Tensor = torch.linalg.vector_norm(gradient, dtype=torch.float32)
    if limit:
        gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0))
    return norm
