from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.data.control_size import ControlSize, FixedSize, LikeTarget, NearArea, OwnSize

sides = st.integers(1, 20_000)


@given(width=sides, height=sides, area=st.sampled_from([(1, 1), (16, 16), (384, 384), (1328, 1328)]))
@pytest.mark.parametrize("step", [16, 32])
def test_every_size_however_absurd_the_picture_is_made_of_whole_steps(
    width: int, height: int, area: tuple[int, int], step: int
) -> None:
    for rule in (OwnSize(), NearArea(area)):
        size = rule.choose((width, height), target=(512, 512), step=step)

        assert all(side >= step and side % step == 0 for side in size)


@given(width=st.integers(100, 2000), height=st.integers(100, 2000))
def test_near_area_keeps_the_area_and_comes_near_the_ratio(width: int, height: int) -> None:
    chosen = NearArea(1024).choose((width, height), target=(512, 512), step=16)

    assert 0.8 * 1024**2 <= chosen[0] * chosen[1] <= 1024**2
    assert chosen[0] / chosen[1] == pytest.approx(width / height, rel=0.08)


@given(width=sides, height=sides)
def test_own_size_trims_less_than_a_step(width: int, height: int) -> None:
    own = OwnSize().choose((width, height), target=(512, 512), step=16)

    assert all(0 <= before - after < 16 for before, after in zip((width, height), own, strict=True) if before >= 16)


def test_like_target_has_the_targets_bucket() -> None:
    assert LikeTarget().choose((3000, 10), target=(832, 480), step=16) == (832, 480)


def test_near_area_of_a_strip_that_is_wider_than_its_area_is_one_step_high() -> None:
    assert NearArea(64).choose((100_000, 1), target=(64, 64), step=16) == (256, 16)


@pytest.mark.parametrize("size", [LikeTarget(), OwnSize(), NearArea(512), NearArea((960, 544))])
def test_control_sizes_survive_a_round_trip_by_their_kind(size: ControlSize) -> None:
    assert ControlSize.from_toml(size.to_toml()) == size


@pytest.mark.parametrize("resolution", [0, (0, 16), (512, 512, 3), "512", None, (512.5, 512)])
def test_an_area_that_is_none_is_refused(resolution: object) -> None:
    with pytest.raises(ConfigError, match="resolution"):
        NearArea(resolution)  # type: ignore[arg-type]


@given(width=sides, height=sides)
def test_one_size_for_all_is_made_of_whole_steps(width: int, height: int) -> None:
    assert FixedSize((833, 7)).choose((width, height), target=(512, 512), step=16) == (832, 16)
    assert FixedSize(256).choose((width, height), target=(512, 512), step=16) == (256, 256)


@pytest.mark.parametrize("wrong", [0, (0, 16), (16, -1)])
def test_a_size_that_is_none_is_refused(wrong: int | tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"size: .*give \(width, height\)"):
        FixedSize(wrong)
