"""The keys and the metadata of cache files, equal to the reference's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from musubi import QwenImage, Wan
from musubi.cache.format import content_name, metadata, tensor_key
from musubi.data.sample import Item, Window
from tests.parity.cases import vector_cases

NAMES = {"wan": Wan.name, "qi": QwenImage.name, "qie": QwenImage.name}
"""What the architectures call themselves, of those that are here."""


@pytest.mark.parametrize("case", vector_cases("data_cache_tensors"), ids=lambda case: f"{case['arch']}-{case['case']}")
def test_data_cache_tensors(case: dict[str, Any]) -> None:
    for key, (dtype, shape) in case["tensors"].items():
        name = content_name(key)
        assert name == _name_in_batches(key)
        if name == "clip" and case["arch"] == "wan":
            continue  # a quirk: the key of CLIP features names the latents' dtype, not their own
        if name.startswith("latents_clean"):
            continue  # a quirk: history latents carry the target's shape in their keys, not their own

        assert tensor_key(name, torch.empty(shape, dtype=getattr(torch, dtype), device="meta")) == key

    facts = case["metadata"]
    assert facts["architecture"] == NAMES.get(case["arch"], facts["architecture"])
    caption = facts["caption1"] if case["kind"] == "te" else None
    assert metadata(_item(facts), architecture=facts["architecture"], caption=caption) == facts


def _name_in_batches(key: str) -> str:
    """Return what the reference calls a tensor in a batch (spec 7.3)."""
    if key.endswith("_mask"):
        return key
    name = key.rpartition("_")[0]
    return name.rpartition("_")[0] if name.startswith("latents_") else name


def _item(facts: dict[str, str]) -> Item:
    size = (int(facts.get("width", 0)), int(facts.get("height", 0)))
    return Item(
        name="a",
        media="a",
        path=Path("a"),
        kind="video" if "frame_count" in facts else "image",
        captions=(facts.get("caption1", ""),),
        size=size,
        bucket=size,
        window=Window(0, int(facts.get("frame_count", 1))),
    )
