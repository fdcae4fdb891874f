"""LoRAs of another rank: the nearest ones there are, module by module."""

from __future__ import annotations

import re
from collections.abc import Mapping

from musubi.core.errors import ConfigError, Issue, WeightsError
from musubi.networks.spectrum import spectrum
from musubi.networks.weights import AdapterWeights

Ranks = int | Mapping[str, int]
"""One rank for all modules, or ranks by pattern (full match on module names; of several that match, the last)."""


def resized(
    modules: Mapping[str, AdapterWeights], rank: Ranks | None = None, keep: float | None = None
) -> dict[str, AdapterWeights]:
    """Return the LoRAs nearest to these adapters in the given size.

    Args:
        modules: Adapters of any kind but DoRA.
        rank: The most that a module may have; a module that no pattern matches stays as it is.
        keep: The share of each delta's Frobenius norm to keep: the least rank is taken that does.

    Raises:
        ConfigError: Neither is given, or a value makes no sense, or a pattern matches no module.
        WeightsError: An adapter cannot be decomposed.
    """
    check(modules, rank, keep)
    result: dict[str, AdapterWeights] = {}
    problems: list[Issue] = []
    for name, weights in modules.items():
        most = limit(name, rank)
        if most is None and keep is None:
            result[name] = weights
            continue
        try:
            found = spectrum(weights)
        except WeightsError as error:
            problems.extend(issue.under(name) for issue in error.issues)
            continue
        wanted = found.rank_for(keep) if keep is not None else len(found.values)
        result[name] = found.lora(wanted if most is None else min(wanted, most))
    if problems:
        raise WeightsError("cannot resize the LoRA", problems)
    return result


def limit(name: str, rank: Ranks | None) -> int | None:
    """Return the most that a module may have; None if nothing is said of it."""
    if isinstance(rank, Mapping):
        return next((rank[pattern] for pattern in reversed([*rank]) if re.fullmatch(pattern, name)), None)
    return rank


def check(modules: Mapping[str, object], rank: Ranks | None, keep: float | None) -> None:
    """Raise ``ConfigError`` for sizes that make no sense for modules of these names."""
    issues: list[Issue] = []
    if rank is None and keep is None:
        issues.append(Issue("rank", "is missing", "give rank=16, or keep=0.95 for a share of the norm"))
    if keep is not None and not 0 < keep <= 1:
        issues.append(Issue("keep", f"must be above 0 and at most 1, got {keep!r}"))
    for path, pattern, size in _sizes(rank):
        if size < 1:
            issues.append(Issue(path, f"must be at least 1, got {size!r}"))
        if pattern is not None:
            issues.extend(_pattern_issues(path, pattern, modules))
    if issues:
        raise ConfigError("resize", issues)


def _sizes(rank: Ranks | None) -> list[tuple[str, str | None, int]]:
    if isinstance(rank, Mapping):
        return [(f"rank[{pattern!r}]", pattern, size) for pattern, size in rank.items()]
    return [] if rank is None else [("rank", None, rank)]


def _pattern_issues(path: str, pattern: str, modules: Mapping[str, object]) -> list[Issue]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        return [Issue(path, f"is not a regular expression: {error}")]
    if any(map(expression.fullmatch, modules)):
        return []
    hint = f"a pattern must match the whole name, e.g. {next(iter(modules), 'blocks.0.ffn.0')}"
    return [Issue(path, "matches no module", hint)]
