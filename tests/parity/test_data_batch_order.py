"""Which items make up which batch in which epoch, equal to the reference's order inside one dataset.

The reference also deals out noise levels in the same place; ours are the trainer's business and not part of the order.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from musubi.cache.order import Key, Order
from musubi.data.buckets import Buckets
from tests.parity.cases import vector_cases

CASES = vector_cases("data_batch_order")
_SIZE = re.compile(r"_(?P<width>\d+)x(?P<height>\d+)_[a-z]+\.safetensors$")
_FRAMES = re.compile(r"_\d+-(?P<frames>\d+)(?:-\d+)?$")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['arch']}-{case['seed']}")
def test_data_batch_order(case: dict[str, Any]) -> None:
    groups: dict[Key, list[str]] = {}
    for name in case["cache_files"]:
        groups.setdefault(_key(case, name), []).extend([name] * case["num_repeats"])

    order = Order(groups, dict.fromkeys(groups, case["batch_size"]), seed=case["seed"])

    expected = case["result"]
    assert [[list(key), len(groups[key])] for key in sorted(groups)] == [
        [_plain(case, key), n] for key, n in expected["buckets"]
    ]
    assert sum(map(len, groups.values())) == expected["num_train_items"]
    assert len(order) == expected["num_batches"]
    for epoch in expected["epochs"]:
        assert order.epoch(epoch["epoch"] - 1) == epoch["batches"]


def _key(case: dict[str, Any], name: str) -> Key:
    """Return the bucket of a cache file as the reference tells it from the name."""
    size = _SIZE.search(name)
    assert size is not None
    width, height = case["resolution"]
    buckets = Buckets(resolution=(width, height), enabled=case["enable_bucket"], no_upscale=case["bucket_no_upscale"])
    bucket = buckets.choose((int(size["width"]), int(size["height"])))
    if not case["is_video"]:
        return bucket
    window = _FRAMES.search(name[: size.start()])
    assert window is not None
    return (*bucket, int(window["frames"]))


def _plain(case: dict[str, Any], key: list[Any]) -> list[Any]:
    """Return a bucket's key without the settings that are the same for all items of a dataset."""
    return key[: 3 if case["is_video"] else 2]
