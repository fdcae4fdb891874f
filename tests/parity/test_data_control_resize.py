"""The sizes of a picture and of its controls, and which pictures share a batch, equal to the reference's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from musubi import compat
from musubi.architecture import Geometry
from musubi.batch import batch_key
from musubi.data.buckets import Buckets
from tests.parity.cases import vector_cases

CASES = vector_cases("data_control_resize")
GEOMETRY = Geometry()
CRASH = "a defect of the reference: pictures of impossible sizes crash"
EMPTY = "a defect of the reference: of a control below one step nothing is left; ours keeps a step"


def _name(case: dict[str, Any]) -> str:
    return f"{case['arch']}-{case['image']}-{case['controls']}"


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_data_control_resize(case: dict[str, Any]) -> None:
    expected = case["v0213"]
    if isinstance(expected, str):
        pytest.skip(CRASH)

    target, *controls = _sizes(case)

    width, height = case["image"]
    assert expected["name"] == f"a_{width:04d}x{height:04d}_{case['arch']}.safetensors"
    assert [target[1], target[0]] == expected["content_hwc"][:2]
    assert list(target) == expected["batch_key"][:2]
    # Of an alpha channel ours keeps nothing: none of the models reads it from pixels.
    theirs = [hwc[:2] for hwc in expected["controls_hwc"]]
    assert [_as_theirs(ours, hw) for ours, hw in zip(controls, theirs, strict=True)] == theirs
    if any(0 in hw for hw in theirs) and 0 not in target:
        pytest.skip(EMPTY)


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_the_later_references_batch_key_lists_the_same_sizes(case: dict[str, Any]) -> None:
    later = case["v0213"] if case["head"] == "same" else case["head"]
    if isinstance(later, str):
        pytest.skip(CRASH)
    if case["options"].get("no_resize") and case["options"].get("control_resolution"):
        pytest.skip("the later reference takes both options together for a largest area; ours has one rule at a time")

    target, *controls = _sizes(case)

    key = later["batch_key"]
    theirs = [key[i : i + 2] for i in range(len(key) - 2 * len(controls), len(key), 2)]
    assert later["content_hwc"][:2] == key[1::-1] == [target[1], target[0]]
    assert [hwc[:2] for hwc in later["controls_hwc"]] == theirs
    assert [_as_theirs(ours, hw) for ours, hw in zip(controls, theirs, strict=True)] == theirs


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_one_control_more_or_of_another_size_is_another_batch(case: dict[str, Any]) -> None:
    target, *controls = _sizes(case)
    width, height = controls[-1]

    own = _key(target, *controls)

    assert own == _key(target, *controls)
    assert own != _key(target, *controls, (width, height))
    assert own != _key(target, *controls[:-1], (width, height + GEOMETRY.multiple))


def _key(*sizes: tuple[int, int]) -> object:
    return batch_key({str(i): torch.empty(GEOMETRY.latent_shape(s), device="meta") for i, s in enumerate(sizes)})


def _as_theirs(size: tuple[int, int], theirs: list[int]) -> list[int]:
    """Return a size as (height, width); a side of which nothing is left there has one step here."""
    ours = [size[1], size[0]]
    return [0 if side == 0 and own == GEOMETRY.multiple else own for own, side in zip(ours, theirs, strict=True)]


def _sizes(case: dict[str, Any]) -> list[tuple[int, int]]:
    """Return the sizes of the target and of its controls, by the rules of a dataset file with a case's options."""
    own = "flux_kontext_no_resize_control" if case["arch"] == "fk" else "qwen_image_edit_no_resize_control"
    names = {"no_resize": own, "control_resolution": "qwen_image_edit_control_resolution"}
    dataset = compat.ReferenceImages(
        architecture=case["arch"],
        image_directory="images",
        control_directory="controls",
        caption_extension=".txt",
        resolution=tuple(case["resolution"]),
        enable_bucket=True,
        bucket_no_upscale=case["no_upscale"],
        **{names.get(name, name): value for name, value in case["options"].items()},
    ).dataset(GEOMETRY)
    assert dataset.control_count in {None, len(case["controls"])}
    step, rule = GEOMETRY.multiple, dataset.control_size
    buckets = Buckets(resolution=dataset.resolution, step=step, no_upscale=dataset.no_upscale)
    target = buckets.choose(tuple(case["image"]))
    return [target, *(rule.choose(tuple(own), target=target, step=step) for own in case["controls"])]
