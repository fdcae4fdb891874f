"""The sizes at which pictures to change are shown, equal to the reference's; the rules are a request's to choose.

Two things are not the reference's. Its "official" size of Qwen-Image-Edit has sides in 16 pixels, the authors' in 32:
ours are the authors', and ``NearArea(1024)`` gives the reference's. And it shows the language model the picture at the
VAE's size if that is chosen; ours sees what the authors' pipeline shows it. FLUX.1 Kontext's picture in its own size is
cut at the right and at the bottom there, and around its centre here: the size is the same.
"""

from __future__ import annotations

from typing import Any

import pytest

from musubi import ControlSize, FixedSize, FluxKontext, NearArea, OwnSize, QwenImage
from musubi.architecture import Architecture
from musubi.architectures.flux_kontext.sizes import preferred
from musubi.architectures.qwen_image.sizes import official
from musubi.data.buckets import fit
from tests.parity.cases import vector_cases

CASES = vector_cases("infer_image_size")
MEGAPIXEL, VISION = 1024, 384
KNOWN = {"kontext", "qwen_edit", "area_bucket16", "resize_crop", "framepack_bucket640"}


def of(architecture: str, mode: str = "") -> list[Any]:
    found = [case for case in CASES if case["arch"] == architecture and case.get("mode", "").startswith(mode)]
    return [pytest.param(case, id=case["id"]) for case in found]


def chosen(model: Architecture, rule: ControlSize, own: list[int]) -> list[int]:
    """Return the (width, height) at which a request's rule shows a picture."""
    return [*rule.choose((own[0], own[1]), target=(512, 512), step=model.geometry.multiple)]


def test_infer_image_size_cases_are_all_of_known_kinds() -> None:
    assert {case["arch"] for case in CASES} <= KNOWN


@pytest.mark.parametrize("case", of("kontext", "preferred"))
def test_infer_image_size_preferred(case: dict[str, Any]) -> None:
    assert [*preferred(tuple(case["input_wh"]))] == case["target_wh"]


@pytest.mark.parametrize("case", of("kontext", "no_resize_control"))
def test_infer_image_size_own_size(case: dict[str, Any]) -> None:
    assert chosen(FluxKontext.dev(), OwnSize(), case["input_wh"]) == case["target_wh"] == case["crop_wh"]


@pytest.mark.parametrize("case", of("qwen_edit", "official"))
def test_infer_image_size_a_megapixel(case: dict[str, Any]) -> None:
    assert chosen(QwenImage.edit(), NearArea(MEGAPIXEL), case["input_wh"]) == case["vae_wh"]
    assert chosen(QwenImage.edit(), NearArea(VISION), case["input_wh"]) == case["vl_condition_wh"]


@pytest.mark.parametrize("case", of("qwen_edit", "official"))
def test_infer_image_size_the_authors_is_within_a_step_of_the_reference_s(case: dict[str, Any]) -> None:
    for area, theirs in ((MEGAPIXEL, case["vae_wh"]), (VISION, case["vl_condition_wh"])):
        ours = official(tuple(case["input_wh"]), area * area)
        assert all(side % 32 == 0 for side in ours)
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) <= 32


@pytest.mark.parametrize("case", of("qwen_edit", "original"))
def test_infer_image_size_own_area(case: dict[str, Any]) -> None:
    own = case["input_wh"]

    assert chosen(QwenImage.edit(), NearArea(tuple(own)), own) == case["vae_wh"] == case["vl_condition_wh"]


@pytest.mark.parametrize("case", of("qwen_edit", "image_size_"))
def test_infer_image_size_one_for_all(case: dict[str, Any]) -> None:
    width, height = map(int, case["mode"].removeprefix("image_size_").split("x"))

    assert chosen(QwenImage.edit(), FixedSize((width, height)), case["input_wh"]) == case["vae_wh"]


@pytest.mark.parametrize("case", of("area_bucket16"))
def test_infer_image_size_near_an_area(case: dict[str, Any]) -> None:
    rule = NearArea(tuple(case["resolution_wh"]))

    assert [*rule.choose(tuple(case["input_wh"]), target=(512, 512), step=16)] == case["bucket_wh"]


@pytest.mark.parametrize("case", of("resize_crop"))
def test_infer_image_size_resized_and_cropped(case: dict[str, Any]) -> None:
    plan = fit(tuple(case["input_wh"]), tuple(case["bucket_wh"]))

    if case["identity"]:
        assert case["input_wh"] == case["output_wh"]
        assert [*plan.resized] == case["input_wh"]
        return
    assert [*plan.resized] == case["resized_wh"]
    assert [plan.left, plan.top] == case["crop_left_top"]
    assert plan.method == case["filter"]


@pytest.mark.parametrize("case", of("framepack_bucket640"))
def test_infer_image_size_framepack(case: dict[str, Any]) -> None:
    pytest.skip(f"the sizes around 640 arrive with FramePack ({case['id']})")
