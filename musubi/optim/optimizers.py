"""Optimisers as specs: what they have in common, and AdamW."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import at_least, field
from musubi.core.spec import Spec
from musubi.parameters import ParameterGroup

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

TorchGroup = dict[str, Any]
"""What torch calls a parameter group: ``params``, ``lr``, ``name`` and an optimiser's own options."""

_LOST = (
    "%s updates bfloat16 weights in bfloat16: an update below 0.2 percent of a weight is lost. Keep the weights in "
    "float32, or take AdamW, AdamW8bit, Adafactor, Lion or ProdigyPlusScheduleFree, which round stochastically"
)


def betas(value: object) -> str | None:
    """Say what is wrong with two decay rates, None if nothing."""
    good = (
        isinstance(value, tuple) and len(value) == 2 and all(isinstance(b, int | float) and 0 <= b < 1 for b in value)
    )
    return None if good else f"must be two numbers from 0 to below 1, got {value!r}"


@attrs.frozen(kw_only=True)
class Optimizer(Spec, ABC):
    """How gradients become updates; ``lr`` is the peak learning rate that a schedule scales.

    With ``fused_backward`` each parameter is updated as soon as backward has its gradient, which is freed at once: the
    gradients of a whole model are never there together. Then nothing can be accumulated, and ``max_grad_norm`` limits
    every tensor's gradient by itself.

    Where an optimiser can update parameters one by one (``separable``), those in bfloat16 are updated in float32, with
    the optimiser's state in float32, and rounded stochastically, so that small updates are not lost.
    """

    family: ClassVar[str] = "optimizer"
    separable: ClassVar[bool] = True
    """Whether parameters are updated independently of one another."""

    rounds_itself: ClassVar[bool] = False
    """Whether its package rounds bfloat16 parameters stochastically, so that it need not be done here."""

    lr: float = field(default=1e-4, check=at_least(0))
    fused_backward: bool = False

    def problems(self) -> Iterable[Issue]:
        """Yield an issue if parameters cannot be updated one by one."""
        if self.fused_backward and not self.separable:
            hint = "AdamW, AdamW8bit, Adafactor and Lion can"
            yield Issue("fused_backward", f"{self.kind} looks at all parameters together", hint)

    @property
    def own_schedule(self) -> bool:
        """Whether the optimiser sets its learning rate itself, so that no schedule may scale it."""
        return False

    @property
    def state_bytes(self) -> int:
        """What is kept of each number of a large float32 matrix beside it, as ``plan()`` counts it: two moments."""
        return 8

    def build(self, groups: Iterable[ParameterGroup]) -> torch.optim.Optimizer:
        """Return the optimiser of these parameters; torch's groups carry their names and rates.

        Raises:
            ConfigError: There is nothing to train, the package that the optimiser comes from is not installed, or it
                does not take the options.
        """
        import torch

        from musubi.optim.exact_state import keep_types
        from musubi.optim.separate import SeparateSteps

        given = self._given(groups)
        narrow = any(parameter.dtype == torch.bfloat16 for group in given for parameter in group["params"])
        if narrow and not (self.separable or self.rounds_itself):
            logger.warning(_LOST, self.kind)
        with self._blamed():
            made = self.make(given)
        keep_types(made)
        start = getattr(made, "train", None)
        if start is not None:
            start()
        return SeparateSteps(made) if self.separable and (narrow or self.fused_backward) else made

    def peak_rate(self, group: ParameterGroup) -> float:
        """Return the rate that a group's parameters have where the schedule's factor is 1."""
        return self.lr * group.rate

    @abstractmethod
    def make(self, groups: list[TorchGroup]) -> torch.optim.Optimizer:
        """Return the torch optimiser of these groups."""

    def _given(self, groups: Iterable[ParameterGroup]) -> list[TorchGroup]:
        given: list[TorchGroup] = [
            {"params": list(group.parameters), "lr": self.peak_rate(group), "name": group.name}
            for group in groups
            if group.parameters
        ]
        if not given:
            hint = "let the network's targets match some of the model's layers"
            raise ConfigError(type(self).__name__, [Issue("", "there is no parameter to train", hint)])
        return given

    @contextmanager
    def _blamed(self) -> Generator[None]:
        """Turn what an optimiser has against its options into an error that names the field."""
        try:
            yield
        except (TypeError, ValueError, RuntimeError, AssertionError) as error:
            words = set(re.findall(r"\w+", str(error)))
            named = next((a.alias for a in attrs.fields(type(self)) if a.alias in words), "")
            issue = Issue(named, f"was refused: {str(error) or type(error).__name__}")
            raise ConfigError(type(self).__name__, [issue]) from error


@attrs.frozen(kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101).

    The update is the same on every run of the same machine. By default parameters are updated one after another, in
    the same order of operations on every device and with no memory beyond the two moments; ``fused`` does it in one
    kernel, faster on a GPU with hundreds of adapters, equal up to the last bits.

    Example:
        >>> from musubi import AdamW
        >>> AdamW(lr=2e-4).weight_decay
        0.01
    """

    kind: ClassVar[str] = "adamw"

    betas: tuple[float, float] = field(default=(0.9, 0.999), check=betas)
    eps: float = field(default=1e-8, check=at_least(0))
    weight_decay: float = field(default=0.01, check=at_least(0))
    fused: bool = False

    def make(self, groups: list[TorchGroup]) -> torch.optim.Optimizer:
        """Return ``torch.optim.AdamW``; never its ``foreach`` form, which copies all parameters at every step."""
        import torch

        return torch.optim.AdamW(
            groups,
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            foreach=False,
            fused=self.fused,
        )
