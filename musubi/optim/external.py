"""Optimisers of other packages, imported when they are built."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import at_least, count, field, optional, positive, share
from musubi.optim.optimizers import Optimizer, TorchGroup, betas

if TYPE_CHECKING:
    import torch


@attrs.frozen(kw_only=True)
class AdamW8bit(Optimizer):
    """AdamW with both moments in 8 bits: 2 bytes of state for a parameter instead of 8 (``bitsandbytes``).

    Tensors of fewer than ``min_8bit_size`` numbers keep theirs in 32 bits. Source: Dettmers et al. 2022,
    https://arxiv.org/abs/2110.02861.

    Example:
        >>> from musubi import AdamW8bit
        >>> AdamW8bit(lr=2e-4).min_8bit_size
        4096
    """

    kind: ClassVar[str] = "adamw_8bit"

    betas: tuple[float, float] = field(default=(0.9, 0.999), check=betas)
    eps: float = field(default=1e-8, check=at_least(0))
    weight_decay: float = field(default=0.01, check=at_least(0))
    min_8bit_size: int = field(default=4096, check=count(0))

    @property
    def state_bytes(self) -> int:
        """Two moments of one byte."""
        return 2

    def make(self, groups: list[TorchGroup]) -> torch.optim.Optimizer:
        """Return ``bitsandbytes.optim.AdamW8bit``."""
        made: torch.optim.Optimizer = imported("bitsandbytes.optim", "AdamW8bit", package="bitsandbytes")(
            groups,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            min_8bit_size=self.min_8bit_size,
        )
        return made


@attrs.frozen(kw_only=True)
class Lion(Optimizer):
    """Follow the sign of a momentum: one moment, rates a third to a tenth of AdamW's (``lion-pytorch``).

    Its weight decay is multiplied by the rate, so it wants to be three to ten times AdamW's. Source: Chen et al. 2023,
    https://arxiv.org/abs/2302.06675.

    Example:
        >>> from musubi import Lion
        >>> Lion(lr=3e-5).betas
        (0.9, 0.99)
    """

    kind: ClassVar[str] = "lion"

    lr: float = field(default=3e-5, check=positive)
    betas: tuple[float, float] = field(default=(0.9, 0.99), check=betas)
    weight_decay: float = field(default=0.0, check=at_least(0))

    @property
    def state_bytes(self) -> int:
        """One moment."""
        return 4

    def make(self, groups: list[TorchGroup]) -> torch.optim.Optimizer:
        """Return ``lion_pytorch.Lion``."""
        made: torch.optim.Optimizer = imported("lion_pytorch", "Lion", package="lion-pytorch")(
            groups, lr=self.lr, betas=self.betas, weight_decay=self.weight_decay
        )
        return made


@attrs.frozen(kw_only=True)
class Prodigy(Optimizer):
    """Estimate the learning rate while training; ``lr`` multiplies the estimate and is usually 1 (``prodigyopt``).

    ``d_coef`` scales the estimate, the way to make it bolder or more careful; ``d0`` is the first one. With a warm-up
    set ``safeguard_warmup``. All parameters have one estimate and one rate, so groups with rates of their own (LoRA+,
    rules with a ``rate``) are refused. Source: Mishchenko & Defazio 2023, https://arxiv.org/abs/2306.06101.

    Example:
        >>> from musubi import Prodigy
        >>> Prodigy(d_coef=0.5).lr
        1.0
    """

    kind: ClassVar[str] = "prodigy"
    separable: ClassVar[bool] = False

    lr: float = field(default=1.0, check=positive)
    betas: tuple[float, float] = field(default=(0.9, 0.999), check=betas)
    beta3: float | None = field(default=None, check=optional(share))
    eps: float = field(default=1e-8, check=positive)
    weight_decay: float = field(default=0.0, check=at_least(0))
    decouple: bool = True
    use_bias_correction: bool = False
    safeguard_warmup: bool = False
    d0: float = field(default=1e-6, check=positive)
    d_coef: float = field(default=1.0, check=positive)
    growth_rate: float = field(default=float("inf"), check=at_least(1))
    slice_p: int = field(default=1, check=count())

    @property
    def state_bytes(self) -> int:
        """Two moments, and of every ``slice_p``-th number where it began and a sum of gradients."""
        return 8 + math.ceil(8 / self.slice_p)

    def make(self, groups: list[TorchGroup]) -> torch.optim.Optimizer:
        """Return ``prodigyopt.Prodigy``; its weight decay goes in by the groups, since it prints it otherwise."""
        different = [group["name"] for group in groups if group["lr"] not in {groups[0]["lr"], 0.0}]
        if different:
            hint = "leave out LoRA+ and rules with a rate, or take ProdigyPlusScheduleFree"
            issue = Issue("lr", f"must be one for all parameters, but {', '.join(different)} has its own", hint)
            raise ConfigError("Prodigy", [issue])
        made: torch.optim.Optimizer = imported("prodigyopt", "Prodigy", package="prodigyopt")(
            [{**group, "weight_decay": self.weight_decay} for group in groups],
            lr=self.lr,
            betas=self.betas,
            beta3=self.beta3,
            eps=self.eps,
            decouple=self.decouple,
            use_bias_correction=self.use_bias_correction,
            safeguard_warmup=self.safeguard_warmup,
            d0=self.d0,
            d_coef=self.d_coef,
            growth_rate=self.growth_rate,
            slice_p=self.slice_p,
        )
        return made


@attrs.frozen(kw_only=True)
class ScheduleFreeAdamW(Optimizer):
    """AdamW that needs no schedule, since it averages its weights as it goes (``schedulefree``).

    ``warmup_steps`` are its own. Samples, validation and files use the averages. Source: Defazio et al. 2024,
    https://arxiv.org/abs/2405.15682.

    Example:
        >>> from musubi import ScheduleFreeAdamW
        >>> ScheduleFreeAdamW(lr=1e-3, warmup_steps=50).own_schedule
        True
    """

    kind: ClassVar[str] = "schedule_free_adamw"
    separable: ClassVar[bool] = False

    lr: float = field(default=2.5e-4, check=at_least(0))
    betas: tuple[float, float] = field(default=(0.9, 0.999), check=betas)
    eps: float = field(default=1e-8, check=at_least(0))
    weight_decay: float = field(default=0.0, check=at_least(0))
    warmup_steps: int = field(default=0, check=count(0))
    r: float = field(default=0.0, check=at_least(0))
    weight_lr_power: float = field(default=2.0, check=at_least(0))

    def problems(self) -> Iterable[Issue]:
        """Yield an issue where the averages could not be told from the weights."""
        yield from super().problems()
        if self.betas[0] == 0:
            yield Issue("betas", "the first must be above 0: with it the averages are found")

    @property
    def own_schedule(self) -> bool:
        """Always."""
        return True

    def make(self, groups: list[TorchGroup]) -> torch.optim.Optimizer:
        """Return ``schedulefree.AdamWScheduleFree``, never in its ``foreach`` form."""
        made: torch.optim.Optimizer = imported("schedulefree", "AdamWScheduleFree", package="schedulefree")(
            groups,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            warmup_steps=self.warmup_steps,
            r=self.r,
            weight_lr_power=self.weight_lr_power,
            foreach=False,
        )
        return made


@attrs.frozen(kw_only=True)
class ProdigyPlusScheduleFree(Optimizer):
    """Prodigy's estimate and schedule-free averages together (``prodigy-plus-schedule-free``).

    With ``split_groups`` every group of parameters has an estimate of its own, so LoRA+ and rules with a ``rate`` work.
    The adaptation ends after ``prodigy_steps`` if they are given. Give ``max_grad_norm=None`` to the trainer: updates
    are limited already, and limited gradients mislead the estimate. bfloat16 parameters are rounded stochastically.

    Example:
        >>> from musubi import ProdigyPlusScheduleFree
        >>> ProdigyPlusScheduleFree(prodigy_steps=400).own_schedule
        True
    """

    kind: ClassVar[str] = "prodigy_plus_schedule_free"
    separable: ClassVar[bool] = False
    rounds_itself: ClassVar[bool] = True

    lr: float = field(default=1.0, check=positive)
    betas: tuple[float, float] = field(default=(0.9, 0.99), check=betas)
    beta3: float | None = field(default=None, check=optional(share))
    eps: float = field(default=1e-8, check=positive)
    weight_decay: float = field(default=0.0, check=at_least(0))
    d0: float = field(default=1e-6, check=positive)
    d_coef: float = field(default=1.0, check=positive)
    prodigy_steps: int = field(default=0, check=count(0))
    schedulefree_c: float = field(default=0.0, check=at_least(0))
    split_groups: bool = True
    split_groups_mean: bool = False
    factored: bool = True
    use_bias_correction: bool = False
    use_stableadamw: bool = True
    use_schedulefree: bool = True

    def problems(self) -> Iterable[Issue]:
        """Yield an issue where the averages could not be told from the weights."""
        yield from super().problems()
        if self.use_schedulefree and self.betas[0] == 0:
            yield Issue("betas", "the first must be above 0: with it the averages are found")

    @property
    def own_schedule(self) -> bool:
        """Whether its weights are averaged."""
        return self.use_schedulefree

    @property
    def state_bytes(self) -> int:
        """The average or a moment, the other moment unless it is by rows and columns, and Prodigy's, which is small."""
        return 5 if self.factored else 9

    def make(self, groups: list[TorchGroup]) -> torch.optim.Optimizer:
        """Return ``prodigyplus.ProdigyPlusScheduleFree``."""
        named = {attribute.name for attribute in attrs.fields(type(self))} - {"fused_backward", "split_groups"}
        options = {name: getattr(self, name) for name in sorted(named)}
        found = imported("prodigyplus", "ProdigyPlusScheduleFree", package="prodigy-plus-schedule-free")
        made: torch.optim.Optimizer = found(groups, split_groups=self.split_groups and len(groups) > 1, **options)
        return made


def imported(module: str, name: str, *, package: str) -> Any:
    """Return a class of a package; raises ``ConfigError`` saying what to install."""
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        hint = f'pip install {package}, or pip install "musubi-trainer[optimizers]"'
        raise ConfigError("optimizer", [Issue("kind", f"{package} is not installed ({error})", hint)]) from error
