"""Adafactor: second moments by rows and columns, hardly any memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import at_least, field, optional, positive
from musubi.optim.optimizers import Optimizer, TorchGroup
from musubi.parameters import ParameterGroup

if TYPE_CHECKING:
    import torch


def _pair(value: object) -> str | None:
    good = isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int | float) and v >= 0 for v in value)
    return None if good else f"must be two numbers of at least 0, got {value!r}"


def _falling(value: object) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 0
    return None if good else f"must be a number from -1 to 0, got {value!r}"


def _decay(value: object) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    return None if good else f"must be a number from 0 to below 1, got {value!r}"


@attrs.frozen(kw_only=True)
class Adafactor(Optimizer):
    """Keep a row and a column of second moments for each matrix (Shazeer & Stern 2018, https://arxiv.org/abs/1804.04235).

    By default it follows ``lr`` and the schedule, what is advised for fine-tuning; give ``max_grad_norm=None`` to the
    trainer then, since updates are limited by ``clip_threshold``. With ``relative_step`` the rate is its own: 0.01 or
    the inverse root of the steps, whichever is lower (from 1e-6 upwards first with ``warmup_init``); then ``lr`` and
    schedules have no meaning, only a group's own multiple has. With ``scale_parameter`` an update is in proportion to
    the size of its tensor, which for adapters that begin at zero makes it very small.

    The class is that of ``transformers``, as in the reference, where ``relative_step`` and ``scale_parameter`` are True
    unless said otherwise.

    Example:
        >>> from musubi import Adafactor
        >>> Adafactor(lr=1e-5, fused_backward=True).own_schedule
        False
        >>> Adafactor(relative_step=True, scale_parameter=True).own_schedule
        True
    """

    kind: ClassVar[str] = "adafactor"

    eps: tuple[float, float] = field(default=(1e-30, 1e-3), check=_pair)
    clip_threshold: float = field(default=1.0, check=positive)
    decay_rate: float = field(default=-0.8, check=_falling)
    beta1: float | None = field(default=None, check=optional(_decay))
    weight_decay: float = field(default=0.0, check=at_least(0))
    scale_parameter: bool = False
    relative_step: bool = False
    warmup_init: bool = False

    def problems(self) -> Iterable[Issue]:
        """Yield an issue if the warm-up has nothing to warm up."""
        yield from super().problems()
        if self.warmup_init and not self.relative_step:
            yield Issue("warmup_init", "is part of the optimiser's own rate", "set relative_step=True, too")

    @property
    def own_schedule(self) -> bool:
        """Whether the rate is relative."""
        return self.relative_step

    @property
    def state_bytes(self) -> int:
        """A row and a column, which hardly count, and the momentum if there is one."""
        return 0 if self.beta1 is None else 4

    def peak_rate(self, group: ParameterGroup) -> float:
        """Return the group's rate, or by how much it multiplies the optimiser's own."""
        return group.rate if self.relative_step else super().peak_rate(group)

    def make(self, groups: list[TorchGroup]) -> torch.optim.Optimizer:
        """Return ``transformers.Adafactor``, or the form of it that multiplies its own rate by a group's."""
        from torch.distributed.tensor import DTensor
        from transformers.optimization import Adafactor as Follower

        from musubi.optim.relative_step import RelativeAdafactor

        if any(isinstance(parameter, DTensor) for group in groups for parameter in group["params"]):
            hint = "AdamW can, and its state is shared out, too"
            raise ConfigError(
                "Adafactor", [Issue("", "cannot train parameters shared out over processes (FSDP)", hint)]
            )
        kind: Any = RelativeAdafactor if self.relative_step else Follower
        made: torch.optim.Optimizer = kind(
            groups,
            lr=None if self.relative_step else self.lr,
            eps=self.eps,
            clip_threshold=self.clip_threshold,
            decay_rate=self.decay_rate,
            beta1=self.beta1,
            weight_decay=self.weight_decay,
            scale_parameter=self.scale_parameter,
            relative_step=self.relative_step,
            warmup_init=self.warmup_init,
        )
        return made
