"""Which modules of a model are adapted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import attrs

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import did_you_mean, each, field
from musubi.core.spec import Spec


def pattern(value: object) -> str | None:
    """Say what is wrong with a regular expression, None if nothing."""
    if not isinstance(value, str):
        return f"must be a regular expression, got {value!r}"
    try:
        re.compile(value)
    except re.error as error:
        return f"{value!r} is not a regular expression: {error}"
    return None


@attrs.frozen(kw_only=True)
class Targets(Spec):
    r"""Change the architecture's default set of adapted modules.

    ``preset`` takes another of the architecture's sets by name, e.g. ``attention``. ``include`` and ``exclude`` are
    regular expressions that must match a module's whole ORIGINAL dotted name, e.g. ``blocks.0.self_attn.q``. A module
    is adapted if an ``include`` pattern matches it, or if it is in the set and no ``exclude`` pattern matches it. So
    ``include`` adds and wins over ``exclude``.

    Example:
        >>> from musubi import Targets
        >>> only = Targets(exclude=(".*",), include=(r"blocks\.\d+\.self_attn\..*",))
        >>> only.choose(["blocks.0.self_attn.q", "blocks.0.ffn.0"], default=[".*"])
        ('blocks.0.self_attn.q',)
    """

    preset: str | None = None
    include: tuple[str, ...] = field(default=(), converter=tuple, check=each(pattern))
    exclude: tuple[str, ...] = field(default=(), converter=tuple, check=each(pattern))

    def choose(
        self,
        names: Iterable[str],
        *,
        default: Iterable[str],
        presets: Mapping[str, Sequence[str]] | None = None,
    ) -> tuple[str, ...]:
        """Return those of a model's original module names that are adapted, in the order given.

        Args:
            names: Every module that could be adapted.
            default: The architecture's patterns (full match).
            presets: Its other sets of patterns.

        Raises:
            ConfigError: There is no such preset, a pattern matches no module at all, or nothing is left to adapt.
        """
        known = tuple(names)
        issues = [*self._preset_issues(presets or {}), *self._idle(known)]
        if issues:
            raise ConfigError("targets", issues)
        usual = matcher(default if self.preset is None else (presets or {})[self.preset])
        included, excluded = matcher(self.include), matcher(self.exclude)
        chosen = tuple(name for name in known if included(name) or (usual(name) and not excluded(name)))
        if not chosen:
            hint = "exclude less, or include something"
            raise ConfigError("targets", [Issue("exclude", f"leaves none of {len(known)} modules to adapt", hint)])
        return chosen

    def _preset_issues(self, presets: Mapping[str, Sequence[str]]) -> Iterable[Issue]:
        if self.preset is not None and self.preset not in presets:
            near = did_you_mean(self.preset, presets)
            hint = f"there are {', '.join(presets)}" if presets else "this architecture has none"
            yield Issue("preset", f"no set of modules is called {self.preset!r}{near}", hint)

    def _idle(self, names: Sequence[str]) -> Iterable[Issue]:
        for path, patterns in (("include", self.include), ("exclude", self.exclude)):
            for index, one in enumerate(patterns):
                yield from idle(one, names, path=f"{path}[{index}]")


def idle(one: str, names: Sequence[str], *, path: str) -> Iterable[Issue]:
    """Yield an issue if a pattern matches none of the names, with the nearest of them."""
    if not any(map(re.compile(one).fullmatch, names)):
        near = did_you_mean(one.replace("\\", ""), names)
        hint = "a pattern must match the whole dotted name, e.g. " + (names[0] if names else "blocks.0.ffn.0")
        yield Issue(path, f"{one!r} matches no module{near}", hint)


def matcher(patterns: Iterable[str]) -> Matcher:
    """Return what tells whether any of the patterns matches a whole name."""
    return Matcher(tuple(map(re.compile, patterns)))


@attrs.frozen
class Matcher:
    """Whether one of several patterns matches a whole name."""

    patterns: tuple[re.Pattern[str], ...]

    def __call__(self, name: str) -> bool:
        return any(one.fullmatch(name) for one in self.patterns)
