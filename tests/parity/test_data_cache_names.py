"""The names of cache files, equal to the reference's."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from musubi.cache.format import SUFFIX, latent_label, text_label
from musubi.compat.names import LatentName, latent_name
from musubi.data.sample import Window, kind_of, labels
from tests.parity.cases import vector_cases

CASES = vector_cases("data_cache_names")
LONGEST = 180
"""Bytes of a stem; longer ones are shortened here, so that temporary names fit into what file systems take."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: PurePosixPath(case["latent_cache"]).name)
def test_data_cache_names(case: dict[str, Any]) -> None:
    path, size = Path(case["path"]), (case["width"], case["height"])
    stem = path.stem
    window = Window(*case["window"]) if case.get("window") else None

    def latent(part: int | None = None) -> str:
        return f"/cache/{latent_label(stem, size=size, suffix=case['arch'], window=window, part=part)}{SUFFIX}"

    if kind_of(path) is not None:  # of a folder called walk.v1 the reference keeps walk, ours all
        assert labels([path]) == (stem,)
    if len(stem.encode()) > LONGEST:
        pytest.skip("no defect, but a choice: a stem that leaves no room for temporary names is shortened")
    assert latent() == case["latent_cache"]
    assert f"/cache/{text_label(stem, suffix=case['arch'])}{SUFFIX}" == case["te_cache"]
    for name in case.get("section_caches", ()):
        part = int(name.rpartition("_")[0].rpartition("_")[0].rpartition("-")[2])
        assert latent(part) == name
        assert _read(case, name) == LatentName(stem=stem, size=size, window=window, section=part)


@pytest.mark.parametrize("case", CASES, ids=lambda case: PurePosixPath(case["latent_cache"]).name)
def test_data_cache_names_are_read_back_as_the_reference_does(case: dict[str, Any]) -> None:
    found = _read(case, case["latent_cache"])

    assert found is not None
    assert f"/cache/{found.stem}_{case['arch']}_te{SUFFIX}" == case["te_expected_by_trainer"]
    assert found.size == (case["width"], case["height"])
    assert found.window == (Window(*case["window"]) if case.get("window") else None)


def _read(case: dict[str, Any], path: str) -> LatentName | None:
    return latent_name(PurePosixPath(path).name, architecture=case["arch"], clip=bool(case.get("window")))
