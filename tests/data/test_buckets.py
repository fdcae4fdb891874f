from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.architecture import Size
from musubi.data.buckets import Buckets, fit, table

sides = st.integers(64, 2048)
sizes = st.tuples(sides, sides)


@settings(deadline=None, max_examples=50)
@given(resolution=sizes, step=st.sampled_from([8, 16, 32]))
def test_every_bucket_is_a_multiple_of_the_step_and_no_larger_than_the_resolution(resolution: Size, step: int) -> None:
    area = resolution[0] * resolution[1]

    assert all(w % step == h % step == 0 and 0 < w * h <= area for w, h in table(resolution, step))


@settings(deadline=None, max_examples=50)
@given(resolution=sizes)
def test_the_table_is_sorted_and_has_every_bucket_both_ways_up(resolution: Size) -> None:
    buckets = table(resolution, 16)

    assert list(buckets) == sorted({(h, w) for w, h in buckets})


@settings(deadline=None, max_examples=50)
@given(resolution=sizes)
def test_a_bucket_of_the_table_is_its_own_bucket(resolution: Size) -> None:
    buckets = Buckets(resolution=resolution)

    assert all(buckets.choose(size) == size for size in table(resolution, 16))


@settings(deadline=None, max_examples=50)
@given(size=sizes, bucket=sizes)
def test_a_resized_image_covers_its_bucket_and_is_cropped_around_the_centre(size: Size, bucket: Size) -> None:
    plan = fit(size, bucket)

    assert all(resized >= wanted for resized, wanted in zip(plan.resized, bucket, strict=True))
    assert min(r - w for r, w in zip(plan.resized, bucket, strict=True)) == 0
    assert (plan.left, plan.top) == ((plan.resized[0] - bucket[0]) // 2, (plan.resized[1] - bucket[1]) // 2)


@settings(deadline=None, max_examples=50)
@given(size=sizes)
def test_without_upscaling_a_small_image_keeps_its_size_up_to_a_step(size: Size) -> None:
    chosen = Buckets(resolution=(2048, 2048), no_upscale=True).choose(size)

    assert all(side - 16 < kept <= side for side, kept in zip(size, chosen, strict=True))


def test_without_bucketing_everything_is_cropped_to_the_resolution() -> None:
    assert Buckets(resolution=(333, 777), enabled=False).choose((1920, 1080)) == (333, 777)


def test_a_resolution_below_two_steps_has_no_table() -> None:
    with pytest.raises(ValueError, match="16x16 is too small"):
        table((16, 16), 16)
