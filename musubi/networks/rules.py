"""Other sizes and learning rates for some of the adapted modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import attrs

from musubi.core.errors import Issue
from musubi.core.fields import at_least, count, field, optional, positive
from musubi.core.spec import Spec
from musubi.networks.targets import idle, matcher, pattern

N = TypeVar("N")


@attrs.frozen(kw_only=True)
class Rule(Spec):
    r"""Give the modules that a pattern matches another rank, alpha or learning rate.

    ``modules`` must match a module's whole ORIGINAL dotted name. ``rate`` multiplies the optimiser's learning rate; a
    ``rank`` without ``alpha`` keeps the network's strength, alpha / rank. Of several rules for a module, each value is
    the last rule's that has it.

    Example:
        >>> from musubi import LoRA, Rule
        >>> LoRA(rank=16, rules=(Rule(modules=r"blocks\.[0-9]\..*", rank=4, rate=0.5),)).rules[0].rank
        4
    """

    modules: str = field(check=pattern)
    rank: int | None = field(default=None, check=optional(count()))
    alpha: float | None = field(default=None, check=optional(positive))
    rate: float | None = field(default=None, check=optional(at_least(0)))


@attrs.frozen(kw_only=True)
class Sizes:
    """What one adapted module gets."""

    rank: int
    alpha: float
    rate: float = 1.0


def sizes(rules: Sequence[Rule], name: str, *, rank: int, strength: float) -> Sizes:
    """Return the sizes of a module by its original name."""
    obeyed = [rule for rule in rules if matcher([rule.modules])(name)]
    rank = _last((rule.rank for rule in obeyed), rank)
    return Sizes(
        rank=rank,
        alpha=_last((rule.alpha for rule in obeyed), rank * strength),
        rate=_last((rule.rate for rule in obeyed), 1.0),
    )


def _last(values: Iterable[N | None], otherwise: N) -> N:
    """Return the last value that there is."""
    return [otherwise, *(value for value in values if value is not None)][-1]


def rule_issues(rules: Sequence[Rule], names: Sequence[str]) -> Iterable[Issue]:
    """Yield an issue for every rule that no adapted module obeys."""
    for index, rule in enumerate(rules):
        yield from idle(rule.modules, names, path=f"rules[{index}].modules")
