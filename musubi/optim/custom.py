"""Any optimiser that the user's own Python names; a file alone cannot."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import field
from musubi.optim.named import Value, as_arguments, dotted, found, name_of, plain
from musubi.optim.optimizers import Optimizer, TorchGroup

if TYPE_CHECKING:
    import torch


@attrs.frozen(kw_only=True)
class CustomOptimizer(Optimizer):
    """Use any optimiser class: ``name`` is the class, its name in ``torch.optim``, or ``"package.module.Class"``.

    It is called with torch's parameter groups, ``lr`` and ``arguments``. Since a name decides which code is imported,
    it has to come from Python: a file that has one is read only where the program that reads it allows that, by
    ``WanTrainer.load(path, plugins=[CustomOptimizer])``.

    ``sets_own_rate`` says that no schedule may change its rate; names that end in "ScheduleFree" need not say so. The
    state must be of tensors, numbers, text, lists and tables, or a run cannot be resumed.

    Example:
        >>> from musubi import CustomOptimizer
        >>> CustomOptimizer(name="RAdam", lr=1e-4, arguments={"betas": (0.9, 0.99)}).name
        'RAdam'
    """

    kind: ClassVar[str] = "custom"
    separable: ClassVar[bool] = False

    name: str = field(converter=name_of, check=dotted)
    arguments: Mapping[str, Value] = field(factory=dict, converter=as_arguments, check=plain)
    sets_own_rate: bool = False

    @property
    def own_schedule(self) -> bool:
        """Whether the user or the name says so."""
        return self.sets_own_rate or self.name.lower().endswith("schedulefree")

    def make(self, groups: list[TorchGroup]) -> torch.optim.Optimizer:
        """Return an object of the class, not in its ``foreach`` form, which copies all parameters, unless asked to."""
        import torch

        kind: Any = found(self.name, "torch.optim")
        if not issubclass(kind, torch.optim.Optimizer):
            raise _unfit(f"{self.name} is no torch.optim.Optimizer")
        if _needs_closure(kind):
            raise _unfit(f"{self.name} computes the loss itself, several times a step, which a run does not offer")
        arguments: dict[str, Any] = {"lr": self.lr, **self.arguments}
        if "foreach" in inspect.signature(kind).parameters:
            arguments.setdefault("foreach", False)
        try:
            made: torch.optim.Optimizer = kind(groups, **arguments)
        except (TypeError, ValueError, AssertionError) as error:
            raise _unfit(f"{self.name} refuses them: {error}", "arguments") from error
        return made


def _unfit(message: str, path: str = "name") -> ConfigError:
    return ConfigError("CustomOptimizer", [Issue(path, message)])


def _needs_closure(kind: type[torch.optim.Optimizer]) -> bool:
    parameters = list(inspect.signature(kind.step).parameters.values())[1:]
    return any(p.default is p.empty and p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD} for p in parameters)
