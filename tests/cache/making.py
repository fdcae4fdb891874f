"""Items, jobs and what planning needs, made in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from musubi.architecture import Architecture, Stage
from musubi.cache import manifest as manifests
from musubi.cache.building.identity import Identities, encoders
from musubi.cache.building.jobs import Job
from musubi.cache.building.memory import FileMemory
from musubi.cache.building.plan import Plan, plan_items
from musubi.cache.building.stored import Stored
from musubi.core.errors import Issue
from musubi.data.sample import Item
from musubi.testing.toy import Toy

LATENTS, TEXT = Toy().stages


def an_item(name: str = "cat", **changes: Any) -> Item:
    """Return a still of 64 x 64 pixels."""
    still = Item(
        name=name,
        media=name,
        path=Path(f"{name}.png"),
        kind="image",
        captions=(f"a {name}",),
        size=(64, 64),
        bucket=(64, 64),
    )
    return attrs.evolve(still, **changes)


def a_job(item: Item, stage: Stage = LATENTS, **changes: Any) -> Job:
    """Return the job of an item's pixels, or of its first caption."""
    caption = item.captions[0] if "caption" in stage.reads else None
    fingerprint = f"{stage.name} {item.name}"
    return Job(
        stage=stage,
        item=item,
        caption=caption,
        fingerprint=fingerprint,
        name=item.name,
        media=item.media,
        suffix="toy",
        **changes,
    )


def identities(folder: Path, model: Architecture | None = None, *, dtype: str = "float32") -> Identities:
    """Return what works out the fingerprints of a model's outputs."""
    chosen = model or Toy()
    return Identities(model=chosen, components=encoders(chosen, chosen.codec()), dtype=dtype, memory=FileMemory(folder))


def a_plan(
    items: list[Item], folder: Path, *, report: list[Issue] | None = None, model: Architecture | None = None
) -> Plan:
    """Plan items for a folder that may hold a cache."""
    chosen = model or Toy()
    before = manifests.plain(manifests.load(folder)) if manifests.exists(folder) else None
    return plan_items(
        items,
        model=chosen,
        components=encoders(chosen, chosen.codec()),
        dtype="float32",
        memory=FileMemory(folder),
        stored=Stored(folder, before),
        report=(report if report is not None else list[Issue]()).append,
    )
