"""What can be trained on a model: the root of all networks, and what those of adapters have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.fields import count, field, optional, positive
from musubi.core.spec import Spec
from musubi.networks.dropouts import Dropouts
from musubi.networks.rules import Rule
from musubi.networks.targets import Targets

if TYPE_CHECKING:
    import torch
    from torch import Generator, nn

    from musubi.architecture import Layout
    from musubi.keymap import KeyMap
    from musubi.networks.layers import AdapterLayer
    from musubi.networks.rules import Sizes
    from musubi.networks.trained import Trained


def probability(value: object) -> str | None:
    """Say what is wrong with a probability below 1, None if nothing."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    return None if good else f"must be a number from 0 to below 1, got {value!r}"


@attrs.frozen(kw_only=True)
class Network(Spec, ABC):
    """What is trained: adapters over a frozen model, or the model itself."""

    family: ClassVar[str] = "network"
    trains_base: ClassVar[bool] = False
    """Whether the model's own weights are trained, rather than something beside them."""

    targets: Targets = attrs.field(factory=Targets)

    @abstractmethod
    def prepare(self, model: nn.Module, *, keys: KeyMap, layout: Layout, generator: Generator) -> Trained:
        """Return what is trained on a loaded model: without effect yet, not attached.

        Args:
            model: The base model, on any device.
            keys: Its original names.
            layout: Its default set of modules.
            generator: Source of initial weights, consumed in the model's module order; of the CPU.

        Raises:
            ConfigError: A pattern matches no module.
        """

    @abstractmethod
    def trainable(self, model: nn.Module, *, keys: KeyMap, layout: Layout) -> int:
        """Return how many numbers are trained on a model, which may be on the meta device."""

    @property
    def title(self) -> str:
        """What plans and cards call it, e.g. ``lora of rank 16``."""
        return self.kind

    def weights_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the type that the model's weights are kept in while it computes in ``dtype``."""
        return dtype


@attrs.frozen(kw_only=True)
class AdapterNetwork(Network):
    """What is trained on top of a frozen model: one small delta for each adapted module.

    Args:
        targets: Which modules are adapted.
        rank: The inner dimension.
        alpha: Scales the delta by ``alpha / rank``; None means ``rank``, so that the strength does not depend on the
            rank. (The reference's defaults are rank 4 and alpha 1, a strength of 1/4.)
        rules: Other ranks, alphas and learning rates for some modules.
        rank_dropout: Probability with which a rank, or an output of LoHa and LoKr, is left out, for all tokens at once.
        module_dropout: Probability with which a module's whole delta is left out.
        max_norm: Deltas whose Frobenius norm grows beyond this are scaled back to it after every step.
    """

    rank: int = field(default=16, check=count())
    alpha: float | None = field(default=None, check=optional(positive))
    rules: tuple[Rule, ...] = ()
    rank_dropout: float = field(default=0.0, check=probability)
    module_dropout: float = field(default=0.0, check=probability)
    max_norm: float | None = field(default=None, check=optional(positive))

    @property
    def strength(self) -> float:
        """The factor of a module's delta, ``alpha / rank``."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def dropouts(self) -> Dropouts:
        """What training leaves out of each layer."""
        return Dropouts(rank=self.rank_dropout, module=self.module_dropout)

    @property
    def title(self) -> str:
        """Kind and rank."""
        return f"{self.kind} of rank {self.rank}"

    def prepare(self, model: nn.Module, *, keys: KeyMap, layout: Layout, generator: Generator) -> Trained:
        """Return fresh adapters."""
        from musubi.networks.adapters import AdapterSet

        return AdapterSet.create(self, model, keys=keys, layout=layout, generator=generator)

    def trainable(self, model: nn.Module, *, keys: KeyMap, layout: Layout) -> int:
        """Return how many numbers the adapters have."""
        from musubi.networks.groups import linears_of, targeted

        total = 0
        for group, size in targeted(model, self, keys=keys, layout=layout):
            layer = self.layer(linears_of(model, group.members), sizes=size, device="meta")
            total += sum(parameter.numel() for parameter in layer.parameters())
        return total

    @abstractmethod
    def layer(self, group: Sequence[nn.Linear], *, sizes: Sizes, device: str = "cpu") -> AdapterLayer:
        """Return an adapter, not drawn yet, for Linears that are one module in the original checkpoint.

        The Linears have a common input; each adds its own rows of the one delta.
        """
