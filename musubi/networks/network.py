"""What every kind of network has in common: size, strength, dropout and the modules it adapts."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count, did_you_mean, each, field, optional, positive
from musubi.core.spec import Spec

if TYPE_CHECKING:
    from torch import Generator, nn

    from musubi.networks.layers import AdapterLayer


def _pattern(value: object) -> str | None:
    if not isinstance(value, str):
        return f"must be a regular expression, got {value!r}"
    try:
        re.compile(value)
    except re.error as error:
        return f"{value!r} is not a regular expression: {error}"
    return None


def _probability(value: object) -> str | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    return None if good else f"must be a number from 0 to below 1, got {value!r}"


@attrs.frozen(kw_only=True)
class Targets(Spec):
    """Change the architecture's default set of adapted modules.

    Both are regular expressions that must match a module's whole ORIGINAL dotted name, e.g.
    ``blocks.0.self_attn.q``. A module is adapted if an ``include`` pattern matches it, or if it is in the default set
    and no ``exclude`` pattern matches it. So ``include`` adds and wins over ``exclude``, and
    ``Targets(exclude=(".*",), include=(r".*self_attn.*",))`` adapts nothing but the self-attention.
    """

    include: tuple[str, ...] = field(default=(), converter=tuple, check=each(_pattern))
    exclude: tuple[str, ...] = field(default=(), converter=tuple, check=each(_pattern))

    def choose(self, names: Iterable[str], *, default: Iterable[str]) -> tuple[str, ...]:
        """Return those of a model's original module names that are adapted, in the order given.

        Args:
            names: Every module that could be adapted.
            default: The architecture's patterns (full match).

        Raises:
            ConfigError: A pattern matches no module at all, or nothing is left to adapt.
        """
        known = tuple(names)
        issues = [*self._idle("include", known), *self._idle("exclude", known)]
        if issues:
            raise ConfigError("targets", issues)
        usual, included, excluded = _matcher(default), _matcher(self.include), _matcher(self.exclude)
        chosen = tuple(name for name in known if included(name) or (usual(name) and not excluded(name)))
        if not chosen:
            hint = "exclude less, or include something"
            raise ConfigError("targets", [Issue("exclude", f"leaves none of {len(known)} modules to adapt", hint)])
        return chosen

    def _idle(self, path: str, names: Sequence[str]) -> Iterable[Issue]:
        patterns: tuple[str, ...] = getattr(self, path)
        for index, pattern in enumerate(patterns):
            if not any(map(re.compile(pattern).fullmatch, names)):
                near = did_you_mean(pattern.replace("\\", ""), names)
                hint = "a pattern must match the whole dotted name, e.g. " + (names[0] if names else "blocks.0.ffn.0")
                yield Issue(f"{path}[{index}]", f"{pattern!r} matches no module{near}", hint)


@attrs.frozen(kw_only=True)
class Network(Spec, ABC):
    """What is trained on top of a frozen model: one small delta for each adapted module.

    ``alpha`` scales the delta by ``alpha / rank``; None means ``rank``, so that the strength does not depend on the
    rank. (The reference's defaults are rank 4 and alpha 1, a strength of 1/4.) ``dropout`` is the probability with
    which a rank's activation is dropped in training.
    """

    family: ClassVar[str] = "network"

    rank: int = field(default=16, check=count())
    alpha: float | None = field(default=None, check=optional(positive))
    dropout: float = field(default=0.0, check=_probability)
    targets: Targets = Targets()

    @property
    def strength(self) -> float:
        """The factor of a module's delta, ``alpha / rank``."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @abstractmethod
    def layer(self, group: Sequence[nn.Linear], *, rank: int, generator: Generator) -> AdapterLayer:
        """Return a fresh adapter without effect for Linears that are one module in the original checkpoint.

        The Linears have a common input; each adds its own rows of the one delta.
        """


def _matcher(patterns: Iterable[str]) -> _Matcher:
    return _Matcher(tuple(map(re.compile, patterns)))


@attrs.frozen
class _Matcher:
    patterns: tuple[re.Pattern[str], ...]

    def __call__(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self.patterns)
