"""The names of cache files, equal to the reference's."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from musubi.cache.format import SUFFIX, latent_label, text_label
from musubi.data.sample import Window
from tests.parity.cases import vector, vector_stems

CASES: list[dict[str, Any]] = [case for stem in vector_stems("data_cache_names") for case in vector(stem)["cases"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: PurePosixPath(case["latent_cache"]).name)
def test_data_cache_names(case: dict[str, Any]) -> None:
    stem, size = PurePosixPath(case["path"]).stem, (case["width"], case["height"])
    window = Window(*case["window"]) if case.get("window") else None

    def latent(part: int | None = None) -> str:
        return f"/cache/{latent_label(stem, size=size, suffix=case['arch'], window=window, part=part)}{SUFFIX}"

    assert latent() == case["latent_cache"]
    assert f"/cache/{text_label(stem, suffix=case['arch'])}{SUFFIX}" == case["te_cache"]
    for name in case.get("section_caches", ()):
        part = int(name.rpartition("_")[0].rpartition("_")[0].rpartition("-")[2])
        assert latent(part) == name
