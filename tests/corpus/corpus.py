"""All cases, group by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tests.corpus import (
    broken_clips,
    caption_texts,
    clips,
    conditions,
    controls,
    damage,
    formats,
    json_lines,
    links,
    modes,
    names,
    shapes,
    tables,
)
from tests.corpus.case import Case

GROUPS: Mapping[str, Sequence[Case]] = MappingProxyType(
    {
        "picture formats": formats.CASES,
        "picture modes": modes.CASES,
        "sizes": shapes.CASES,
        "damaged pictures": damage.CASES,
        "clips": clips.CASES,
        "damaged clips": broken_clips.CASES,
        "captions": caption_texts.CASES,
        "names": names.CASES,
        "rows of JSON": json_lines.CASES,
        "tables": tables.CASES,
        "links": links.CASES,
        "controls": controls.CASES,
        "conditions": conditions.CASES,
    }
)

CASES: tuple[Case, ...] = tuple(case for cases in GROUPS.values() for case in cases)
