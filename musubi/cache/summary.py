"""What a cache holds, in a few lines."""

from __future__ import annotations

from collections import Counter

from musubi.cache.manifest import Manifest


def facts_of(manifest: Manifest) -> list[tuple[str, object]]:
    """Return the lines on a built cache: a name and a value each."""
    held_out = manifest.splits.get("validation", 0)
    count = len(manifest.items)
    items = f"{count}: {count - held_out} for training, {held_out} for validation" if held_out else count
    facts: list[tuple[str, object]] = [
        ("items", items),
        ("buckets", ", ".join(f"{label}: {number}" for label, number in manifest.buckets.items())),
        ("stages", ", ".join(manifest.stages)),
    ]
    masked = sum(cached.item.mask is not None for cached in manifest.items)
    if masked:
        facts.append(("with a mask", masked))
    notes = Counter(note.message for note in manifest.notes)
    return [
        *facts,
        ("encoded in", manifest.dtype),
        *_memory(manifest),
        ("size on disk", f"{manifest.bytes / 2**20:.1f} MiB"),
        ("left out", len(manifest.problems)),
        ("notes", ", ".join(f"{message}: {number}" for message, number in notes.most_common()) or 0),
    ]


def _memory(manifest: Manifest) -> list[tuple[str, object]]:
    """Return a line on the policies that changed what was encoded, if there were any."""
    changed = [
        f"{component}: {', '.join(str(policy.get('kind')) for policy in policies)}"
        for component, policies in manifest.memory.items()
    ]
    return [("encoders changed by", "; ".join(changed))] if changed else []
