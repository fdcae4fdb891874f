"""The items a cache is built from: what datasets hold that a model can use."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import attrs

from musubi.architecture import Architecture
from musubi.cache.building.memory import FileMemory
from musubi.core.errors import DataError, Issue, shown
from musubi.core.events import Callback
from musubi.data.dataset import Dataset
from musubi.data.sample import Item
from musubi.data.scan import scan


@attrs.frozen(kw_only=True)
class Survey:
    """Usable items, an issue for everything that is not, and notes on what is; ``fingerprint`` is the datasets'."""

    items: tuple[Item, ...]
    problems: tuple[Issue, ...]
    notes: tuple[Issue, ...]
    fingerprint: str


def survey(
    datasets: Sequence[Dataset],
    model: Architecture,
    *,
    memory: FileMemory,
    on: Sequence[Callback] = (),
    progress: bool = False,
) -> Survey:
    """Look at the files of datasets and return what a model can be trained on.

    Raises:
        DataError: A source cannot be read, or nothing is usable; lists all problems.
    """
    fitted = [dataset.with_geometry(model.geometry) for dataset in datasets]
    found = scan(fitted, on=tuple(on), memory=memory, progress=progress)
    lacking = {item.name: issue for item in found.items if (issue := _lack(item, model)) is not None}
    items = tuple(item for item in found.items if item.name not in lacking)
    problems = (*found.dropped, *lacking.values())
    if not items:
        raise DataError("no item can be used", problems)
    prints = [dataset.fingerprint() for dataset in fitted]
    together = prints[0] if len(prints) == 1 else hashlib.sha256("/".join(prints).encode()).hexdigest()[:16]
    notes = (*found.notes, *_unused_controls(items, model))
    return Survey(items=items, problems=problems, notes=notes, fingerprint=together)


def _unused_controls(items: Sequence[Item], model: Architecture) -> Iterator[Issue]:
    """Yield a note for each file whose conditions the model does not look at."""
    if any("controls" in stage.reads or "originals" in stage.reads for stage in model.stages):
        return
    for path in dict.fromkeys(item.path for item in items if item.controls):
        yield Issue(shown(path), "control is not used", f"{model.title} takes no conditioning pictures or clips")


def _lack(item: Item, model: Architecture) -> Issue | None:
    """Say which condition that the model needs an item does not carry."""
    missing = next((role for role in model.roles.required if not item.controls.get(role)), None)
    if missing is None:
        return None
    return Issue(shown(item.path), f"{missing} missing", f"this model needs a {missing} with every item")
