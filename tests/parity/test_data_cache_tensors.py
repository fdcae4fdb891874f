"""The keys and the metadata of cache files, equal to the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from musubi.cache.format import content_name, metadata, tensor_key
from musubi.data.sample import Item, Window
from tests.parity.cases import vector, vector_stems

CASES: list[dict[str, Any]] = [case for stem in vector_stems("data_cache_tensors") for case in vector(stem)["cases"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['arch']}-{case['case']}")
def test_data_cache_tensors(case: dict[str, Any]) -> None:
    for key, (dtype, shape) in case["tensors"].items():
        name = content_name(key)
        if not key.endswith(("_mask", f"_{dtype}")):
            continue  # a quirk: the key of CLIP features names the latents' dtype, not their own
        if name.startswith("latents_clean"):
            continue  # a quirk: history latents carry the target's shape in their keys, not their own

        assert tensor_key(name, torch.empty(shape, dtype=getattr(torch, dtype), device="meta")) == key

    facts = case["metadata"]
    text = case["kind"] == "te"
    assert metadata(_item(facts), architecture=facts["architecture"], text=text) == facts


def _item(facts: dict[str, str]) -> Item:
    size = (int(facts.get("width", 0)), int(facts.get("height", 0)))
    return Item(
        name="a",
        media="a",
        path=Path("a"),
        kind="video" if "frame_count" in facts else "image",
        caption=facts.get("caption1", ""),
        size=size,
        bucket=size,
        window=Window(0, int(facts.get("frame_count", 1))),
    )
