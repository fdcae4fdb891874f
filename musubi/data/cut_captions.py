"""Captions that a text encoder does not read to their end."""

from __future__ import annotations

from collections.abc import Sequence

from musubi.architecture import CaptionLengths
from musubi.batch import Sample
from musubi.core.errors import Issue


def cut_captions(samples: Sequence[Sample], lengths: CaptionLengths) -> list[Issue]:
    """Say which captions are longer than what is read of them, each once, by the name of the first that has it."""
    issues: dict[str, Issue] = {}
    for sample, tokens in zip(samples, lengths.tokens, strict=True):
        if tokens > lengths.limit:
            message = f"the caption has {tokens} tokens, all after the first {lengths.limit} are ignored"
            issues.setdefault(sample.caption, Issue(sample.name, message, "shorten the caption"))
    return list(issues.values())
