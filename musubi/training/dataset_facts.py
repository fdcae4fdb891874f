"""What a LoRA's metadata tells of the data it was trained on: sizes and counts, never a path of someone's disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from musubi.architecture import Size
from musubi.data.sample import Item


def dataset_facts(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Return one table for each kind, batch size and number of repeats among the items that are trained on.

    Keys are those of musubi-tuner's ``ss_datasets`` as far as a cache knows them, and ``num_items`` and ``buckets``
    beside them.
    """
    groups: dict[tuple[str, int, int], list[Item]] = {}
    for item in items:
        if item.split == "train":
            groups.setdefault((item.kind, item.batch_size, item.repeats), []).append(item)
    return [_facts(group) for group in groups.values()]


def commonest_size(items: Iterable[Item]) -> Size | None:
    """Return the size that most items are trained in, None if there is none."""
    sizes = Counter(item.bucket for item in items if item.split == "train")
    return sizes.most_common(1)[0][0] if sizes else None


def _facts(items: Sequence[Item]) -> dict[str, Any]:
    first, buckets = items[0], Counter(item.bucket_label for item in items)
    facts: dict[str, Any] = {
        "resolution": list(commonest_size(items) or first.bucket),
        "batch_size_per_device": first.batch_size,
        "num_repeats": first.repeats,
        "enable_bucket": len({item.bucket for item in items}) > 1,
        "has_control": any(item.controls for item in items),
        "num_items": len(items),
        "buckets": dict(buckets.most_common()),
    }
    folders = sorted({item.path.parent.name for item in items} - {""})
    if folders:
        facts[f"{first.kind}_directory"] = ", ".join(folders)
    if first.kind == "video":
        facts["target_frames"] = sorted({item.window.count for item in items})
    return facts
