"""Dataset files: what the reference refuses is refused, and what it resolves is resolved to the same values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from musubi import ConfigError, Wan, compat
from tests.parity.cases import vector, vector_stems

CASES: list[dict[str, Any]] = [case for stem in vector_stems("data_config") for case in vector(stem)["cases"]]
SOURCES = ("image_directory", "image_jsonl_file", "video_directory", "video_jsonl_file")
EXTRACTIONS = ("head", "chunk", "slide", "uniform", "full")
AT_LEAST_ONE = (
    *("batch_size", "num_repeats", "frame_stride", "frame_sample", "max_frames", "fp_latent_window_size"),
    *("target_frames", "resolution", "qwen_image_edit_control_resolution"),
)
ANY_NUMBER = ("fp_1f_clean_indices", "fp_1f_target_index")

Rule = tuple[Callable[[Mapping[str, Any]], bool], str]
DEFECTS: tuple[Rule, ...] = (
    (lambda t: any(isinstance(v, bool) for v in _numbers(t, *AT_LEAST_ONE, *ANY_NUMBER)), "a bool passes as a number"),
    (lambda t: any(v < 1 for v in _numbers(t, *AT_LEAST_ONE)), "a number below 1 breaks caching or training"),
    (lambda t: t.get("target_frames") == [], "no clip length breaks when the dataset is built"),
    (lambda t: t.get("frame_extraction", "head") not in EXTRACTIONS, "an unknown extraction breaks at the first clip"),
    (lambda t: not _usable(t.get("source_fps", 1.0)), "a rate that is not above 0 breaks at the first clip"),
    (lambda t: "" in t.values(), "an empty text names nothing"),
)
"""What v0.2.13 validates and misbehaves on later; here each is an error that names the key (tests/compat)."""


def _numbers(table: Mapping[str, Any], *names: str) -> Iterator[int]:
    for name in names:
        value = table.get(name, ())
        yield from (v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int))


def _usable(rate: object) -> bool:
    return not isinstance(rate, float) or (math.isfinite(rate) and rate > 0)


NEWER: Mapping[str, Callable[[object], bool]] = {
    "no_resize_control": lambda value: isinstance(value, bool),
    "control_resolution": lambda value: all(_is_side(v) for v in (value if isinstance(value, list) else [value])),
    "multiple_target": lambda value: value is False,
}
"""Names of pictures' options that later versions of the reference have, each with what is right there."""


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _defect(config: Mapping[str, Any]) -> str | None:
    """Return which defect of the reference lets it accept a file."""
    tables = config.get("datasets", [])
    if not all(any(source in table for source in SOURCES) for table in tables):
        return "a table without a source crashes when the dataset is built"
    given = [*tables, config.get("general", {})]
    return next((reason for is_so, reason in DEFECTS if any(map(is_so, given))), None)


def _is_newer(config: Any) -> bool:
    """Return whether a file uses, rightly, what only later versions of the reference know."""
    tables = config.get("datasets") if isinstance(config, dict) else None
    dicts = [table for table in tables or () if isinstance(table, dict)] if isinstance(tables, list) else []
    pictures = [table for table in dicts if not any(name.startswith("video_") for name in table)]
    return any(name in table and is_right(table[name]) for table in pictures for name, is_right in NEWER.items())


def _plain(params: Mapping[str, object]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in params.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case["config"])[:80])
def test_data_config(case: dict[str, Any], tmp_path: Path) -> None:
    config, expected = case["config"], case["result"]
    defect = _defect(config) if isinstance(expected, list) else None
    if isinstance(expected, str) and _is_newer(config):
        pytest.skip("a name that later versions of the reference have; read here")
    if isinstance(expected, str) or defect is not None:
        with pytest.raises(ConfigError):
            _parsed(config, case["arch"], tmp_path)
        if defect is not None:
            pytest.skip(f"a defect of the reference: {defect}")
        return

    tables = _parsed(config, case["arch"], tmp_path)

    # A defect of the reference: options of a cache script, such as --batch_size, become the datasets'.
    named = case.get("cli") or {}
    assert [table.image for table in tables] == [row["image"] for row in expected]
    for table, row in zip(tables, expected, strict=True):
        theirs = {name: value for name, value in row["params"].items() if name not in named}
        assert {name: value for name, value in _plain(table.params).items() if name not in named} == theirs


def _parsed(config: Any, architecture: str, folder: Path) -> Sequence[compat.ReferenceDataset]:
    """Return the tables of a parsed file; one that holds no table at all is refused where it is read."""
    if isinstance(config, dict):
        return compat.parse(config, architecture=architecture)
    (folder / "odd.json").write_text(json.dumps(config), encoding="utf-8")
    return compat.load_dataset_file(folder / "odd.json", model=Wan.t2v_14b())
