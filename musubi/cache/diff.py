"""What a build would do, without doing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from musubi.architecture import Architecture
from musubi.cache.building.identity import encoders
from musubi.cache.building.memory import FileMemory
from musubi.cache.building.plan import Plan, plan_items
from musubi.cache.building.policies import acting, identities
from musubi.cache.building.stored import Stored
from musubi.cache.building.survey import survey
from musubi.cache.manifest import Manifest, plain
from musubi.cache.records import CachedItem, item_line
from musubi.core.errors import Issue
from musubi.core.notebook import card
from musubi.data.dataset import Dataset
from musubi.memory.policy import MemoryPolicy

_NAMED = 8
"""How many items a line names before it only counts."""


@attrs.frozen(kw_only=True)
class Diff:
    """How a dataset differs from a cache: items by name, what would be encoded, and what would be left out.

    ``changed`` items are trained on otherwise than before, whether or not something is to be encoded for it: a caption,
    a picture, a bucket, repeats, a weight. ``stages`` are the numbers of outputs to encode, by stage.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    stages: Mapping[str, int]
    problems: tuple[Issue, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether a build would change nothing."""
        return not (self.added or self.changed or self.removed or self.stages)

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self._facts())

    def _repr_html_(self) -> str:
        return card(type(self).__name__, self._facts())

    def _facts(self) -> list[tuple[str, object]]:
        stages = ", ".join(f"{count} {stage}" for stage, count in self.stages.items())
        return [
            ("added", _named(self.added)),
            ("changed", _named(self.changed)),
            ("removed", _named(self.removed)),
            ("unchanged", len(self.unchanged)),
            ("to encode", stages or "nothing"),
            ("left out", len(self.problems)),
        ]


def compare(
    folder: Path,
    model: Architecture,
    datasets: Sequence[Dataset],
    before: Manifest | None,
    *,
    dtype: str,
    memory: Sequence[MemoryPolicy] | None = None,
) -> Diff:
    """Return what building the datasets would change; ``dtype`` is what the encoders would run in.

    ``memory`` are the policies that they would run under, None those of the earlier build.

    Raises:
        ConfigError: The cache was built with memory policies that are not known here.
        DataError: Nothing is usable.
        WeightsError: An encoder's files are not there: what they are is part of an entry's identity.
    """
    seen = FileMemory(folder)
    used = acting(memory, None if before is None else before.memory, model)
    components = identities(encoders(model, model.codec()), used)
    found = survey(datasets, model, memory=seen)
    problems = list(found.problems)
    plan = plan_items(
        found.items,
        model=model,
        components=components,
        dtype=dtype,
        memory=seen,
        stored=Stored(folder, None if before is None else plain(before)),
        report=problems.append,
    )
    return _difference(plan, before, problems)


def _difference(plan: Plan, before: Manifest | None, problems: Sequence[Issue]) -> Diff:
    old = {cached.item.name: cached for cached in before.items} if before is not None else {}
    new = {item.name: CachedItem(item=item, outputs=plan.needs[item.name]) for item in plan.items}
    both = [name for name in new if name in old]
    changed = {name for name in both if item_line(new[name]) != item_line(old[name])}
    return Diff(
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in both if name in changed),
        removed=tuple(name for name in old if name not in new),
        unchanged=tuple(name for name in both if name not in changed),
        stages=dict(Counter(job.stage.name for job in plan.missing)),
        problems=tuple(problems),
    )


def _named(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return (
        f"{len(names)}" + (f": {', '.join(names[:_NAMED])}" if names else "") + (f", {more} more" if more > 0 else "")
    )
