"""The sum of several LoRAs as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from musubi.core.errors import Issue, WeightsError
from musubi.networks.resize import Ranks
from musubi.networks.resize import check as check_sizes
from musubi.networks.resize import limit as limit_of
from musubi.networks.spectrum import side_by_side, spectrum
from musubi.networks.weights import AdapterWeights, LoRAWeights

Part = tuple[Mapping[str, AdapterWeights], float]
"""The modules of one file, and its weight in the sum."""

Term = tuple[AdapterWeights, float]
"""One module's adapter in one file, and its weight."""


def combined(parts: Sequence[Part], rank: Ranks | None = None, keep: float | None = None) -> dict[str, AdapterWeights]:
    """Return one adapter for each module of any part, whose delta is the weighted sum of the parts' deltas.

    Without a size, LoRAs are put side by side, exactly; their ranks add up. With one, each sum is the nearest LoRA of
    that size; LoHa and LoKr need one.

    Raises:
        ConfigError: A size makes no sense.
        WeightsError: Shapes differ, or a module cannot be summed; all such modules are named.
    """
    terms: dict[str, list[Term]] = {}
    for modules, weight in parts:
        for name, weights in modules.items():
            terms.setdefault(name, []).append((weights, weight))
    sized = rank is not None or keep is not None
    issues = [issue.under(name) for name, found in terms.items() for issue in _issues(found, sized=sized)]
    if issues:
        raise WeightsError("cannot combine the LoRAs", issues)
    if sized:
        check_sizes(terms, rank, keep)
    return {name: _sum(found, limit_of(name, rank), keep) for name, found in terms.items()}


def shared_metadata(entries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the metadata in which all agree, and the titles of what was combined as ``modelspec.merged_from``."""
    first, *others = entries
    shared = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    titles = [entry.get("modelspec.title") or entry.get("ss_output_name") or "unnamed" for entry in entries]
    return {**shared, "modelspec.merged_from": ", ".join(titles)} if others else shared


def _sum(terms: Sequence[Term], limit: int | None, keep: float | None) -> AdapterWeights:
    exact = _exact(terms)
    if limit is None and keep is None:
        return exact
    found = spectrum(exact)
    wanted = found.rank_for(keep) if keep is not None else len(found.values)
    return found.lora(wanted if limit is None else min(wanted, limit))


def _exact(terms: Sequence[Term]) -> AdapterWeights:
    """Return one adapter with the sum of the deltas; a single one stays of its kind."""
    if len(terms) == 1:
        weights, factor = terms[0]
        return weights if factor == 1 else weights.scaled(factor)
    return side_by_side([_factors(weights) for weights, _ in terms], [factor for _, factor in terms])


def _factors(weights: AdapterWeights) -> LoRAWeights:
    """Return a LoRA of full rank with the same delta."""
    if isinstance(weights, LoRAWeights):
        return weights
    found = spectrum(weights)
    return found.lora(len(found.values))


def _issues(terms: Sequence[Term], *, sized: bool) -> list[Issue]:
    shapes = {weights.shape for weights, _ in terms}
    if len(shapes) > 1:
        return [Issue("", f"has different shapes: {', '.join(map(str, sorted(shapes)))}", "are they for one model?")]
    kinds = {weights.kind for weights, _ in terms}
    alone = len(terms) == 1
    if "dora" in kinds and not (alone and not sized and terms[0][1] == 1):
        return [Issue("", "is a DoRA, which does not add up", "merge the files into a checkpoint, one after the other")]
    if not sized and not alone and kinds != {"lora"}:
        return [Issue("", f"is {', '.join(sorted(kinds))}, whose sum is no LoRA of that kind", "give rank=...")]
    return []
