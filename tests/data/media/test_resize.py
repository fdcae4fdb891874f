from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from musubi.architecture import Size
from musubi.data.buckets import fit
from musubi.data.media.area import area
from musubi.data.media.resize import lanczos, stretched, to_bucket
from tests.data.files import pixels


@settings(deadline=None, max_examples=50)
@given(size=st.tuples(st.integers(1, 60), st.integers(1, 60)), bucket=st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_every_picture_fills_its_bucket(size: Size, bucket: Size) -> None:
    assert to_bucket(pixels(*size), bucket).shape == (bucket[1], bucket[0], 3)
    assert to_bucket(pixels(*size)[:, :, 0], bucket).shape == (bucket[1], bucket[0])


def test_a_picture_of_the_buckets_size_is_left_as_it_is() -> None:
    picture = pixels(32, 16)

    assert to_bucket(picture, (32, 16)) is picture


def test_a_smaller_picture_is_enlarged_by_lanczos_and_cropped_around_the_centre() -> None:
    picture = pixels(20, 20)

    result = to_bucket(picture, (40, 30))

    enlarged = Image.fromarray(picture).resize((40, 40), Image.Resampling.LANCZOS)
    assert np.array_equal(result, np.asarray(enlarged)[5:35])


def test_a_larger_picture_is_shrunk_by_area_and_cropped_around_the_centre() -> None:
    picture = pixels(90, 70)

    assert np.array_equal(to_bucket(picture, (30, 20)), area(picture, (30, 23))[1:21])


@settings(deadline=None, max_examples=50)
@given(value=st.integers(0, 255), size=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_a_plain_colour_stays_what_it_is(value: int, size: Size) -> None:
    assert (to_bucket(np.full((20, 20, 3), value, np.uint8), size) == value).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3)])
def test_extreme_shapes_reach_their_bucket(size: Size) -> None:
    assert to_bucket(pixels(*size), (32, 48)).shape == (48, 32, 3)


@pytest.mark.parametrize(("size", "same"), [((10, 8), area), ((30, 40), lanczos), ((10, 40), lanczos)])
def test_all_of_a_picture_is_stretched_by_area_only_where_no_side_grows(size: Size, same: object) -> None:
    picture = pixels(20, 16)

    assert callable(same)
    assert np.array_equal(stretched(picture, size), same(picture, size))


@pytest.mark.parametrize("size", [(2000, 1), (1, 777), (3001, 7), (2, 640)])
def test_of_a_thread_of_a_picture_only_what_is_kept_is_enlarged(size: Size) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    bucket = (64, 32)
    plan = fit(size, bucket)
    whole = lanczos(pixels, plan.resized)[plan.top : plan.top + 32, plan.left : plan.left + 64]

    found = to_bucket(pixels, bucket)

    assert found.shape == whole.shape
    assert np.abs(found.astype(int) - whole).max() <= 1


def test_the_widest_picture_is_never_enlarged_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("musubi.data.media.resize.lanczos")  # would take 50 GB

    assert to_bucket(np.zeros((1, 65_500, 3), np.uint8), (2048, 512)).shape == (512, 2048, 3)


def test_a_thread_with_alpha_is_enlarged_like_a_whole_one() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 4), np.uint8)
    plan = fit((20, 2), (7, 21))

    found = to_bucket(pixels, (7, 21))

    whole = lanczos(pixels, plan.resized)[plan.top : plan.top + 21, plan.left : plan.left + 7]
    assert math.prod(plan.resized) > 16 * 7 * 21
    assert np.array_equal(found, whole)
