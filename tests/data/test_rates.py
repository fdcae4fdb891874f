from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.data.rates import EveryFrame, FrameRate, Resample, StatedRate
from musubi.data.sample import Probe

FPS = st.sampled_from([8.0, 12.5, 16.0, 23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0, 120.0])
COUNTS = st.integers(1, 700)
GAPS = st.lists(st.floats(0.001, 0.5), min_size=1, max_size=120)


def clip(frames: int, fps: float = 0.0, times: Sequence[float] = ()) -> Probe:
    return Probe(kind="video", size=(64, 48), frames=frames, fps=fps, times=tuple(times))


def uneven(gaps: Sequence[float]) -> Probe:
    times = [0.0, *accumulate(gaps)]
    return clip(len(times), len(gaps) / times[-1], times)


def rates(fps: float) -> tuple[FrameRate, ...]:
    return EveryFrame(), Resample(), Resample(fps=18.0), StatedRate(source_fps=fps)


@settings(deadline=None, max_examples=80)
@given(frames=COUNTS, fps=FPS, wanted=FPS)
def test_every_rate_gives_frames_of_the_clip_in_ascending_order(frames: int, fps: float, wanted: float) -> None:
    for rate in rates(fps):
        chosen = list(rate.frames(clip(frames, fps), fps=wanted))

        assert chosen[0] == 0
        assert chosen[-1] < frames
        assert chosen == sorted(chosen)


@given(frames=st.integers(0, 300), fps=FPS)
def test_at_equal_rates_every_frame_is_taken_once(frames: int, fps: float) -> None:
    for rate in (EveryFrame(), Resample(), Resample(fps=fps), StatedRate(source_fps=fps)):
        assert list(rate.frames(clip(frames, fps), fps=fps)) == list(range(frames))


@pytest.mark.parametrize(("fps", "wanted"), [(24000 / 1001, 24.0), (30.0, 30000 / 1001), (24.002, 24.0)])
def test_rates_that_nobody_can_tell_apart_are_equal(fps: float, wanted: float) -> None:
    assert list(Resample().frames(clip(14400, fps), fps=wanted)) == list(range(14400))


def alike(fps: float, wanted: float) -> bool:
    return abs(fps / wanted - 1) < 0.0011


@settings(deadline=None, max_examples=80)
@given(frames=COUNTS, fps=FPS, wanted=FPS)
def test_resampling_keeps_the_duration_within_half_a_tick(frames: int, fps: float, wanted: float) -> None:
    assume(not alike(fps, wanted))

    ticks = len(Resample().frames(clip(frames, fps), fps=wanted))

    assert ticks == 1 or abs(ticks / wanted - frames / fps) <= 0.5 / wanted + 1e-9


@settings(deadline=None, max_examples=80)
@given(frames=COUNTS, fps=FPS, wanted=FPS)
def test_resampling_takes_the_frame_nearest_in_time(frames: int, fps: float, wanted: float) -> None:
    assume(not alike(fps, wanted))

    chosen = Resample().frames(clip(frames, fps), fps=wanted)

    for tick, number in enumerate(chosen):
        nearest = min(abs(n / fps - tick / wanted) for n in (number - 1, number, number + 1) if 0 <= n < frames)
        assert abs(number / fps - tick / wanted) <= nearest + 1e-8


@settings(deadline=None, max_examples=80)
@given(gaps=GAPS, wanted=FPS)
def test_resampling_an_uneven_clip_takes_the_frame_nearest_in_time(gaps: list[float], wanted: float) -> None:
    seen = uneven(gaps)

    chosen = Resample().frames(seen, fps=wanted)

    assert list(chosen) == sorted(chosen)
    assert len(chosen) == 1 or abs(len(chosen) / wanted - seen.frames / seen.fps) <= 0.5 / wanted + 1e-9
    for tick, number in enumerate(chosen):
        nearest = min(abs(time - tick / wanted) for time in seen.times)
        assert abs(seen.times[number] - tick / wanted) <= nearest + 1e-8


def test_even_times_choose_what_their_rate_chooses() -> None:
    even = clip(300, 30.0)
    told = clip(300, 30.0, [n / 30 for n in range(300)])

    assert Resample().frames(even, fps=16.0) == Resample().frames(told, fps=16.0)


def test_of_two_equally_near_frames_the_earlier_is_taken() -> None:
    assert Resample().frames(clip(7, 24.0), fps=16.0) == [0, 1, 3, 4, 6]
    assert Resample().frames(clip(5, 2.0, (0.0, 0.25, 0.75, 1.0, 2.0)), fps=2.0) == [0, 1, 3, 3, 4]


def test_a_clip_slower_than_the_rate_shows_frames_twice() -> None:
    assert Resample().frames(clip(3, 8.0), fps=16.0) == [0, 0, 1, 1, 2, 2]
    assert list(StatedRate(source_fps=8.0).frames(clip(3, 8.0), fps=16.0)) == [0, 1, 2]


def test_a_rate_of_its_own_takes_the_place_of_the_models() -> None:
    assert Resample(fps=15.0).frames(clip(8, 30.0), fps=24.0) == Resample().frames(clip(8, 30.0), fps=15.0)


def test_where_no_rate_is_known_every_frame_is_taken() -> None:
    assert list(Resample().frames(clip(9), fps=16.0)) == list(range(9))


@given(frames=COUNTS, fps=FPS, wanted=FPS)
def test_a_stated_rate_drops_frames_whatever_the_file_says(frames: int, fps: float, wanted: float) -> None:
    stated = StatedRate(source_fps=fps)

    chosen = stated.frames(clip(frames, 11.0, [0.1 * n**2 for n in range(frames)]), fps=wanted)

    assert list(chosen) == list(stated.frames(clip(frames), fps=wanted))
    assert len(set(chosen)) == len(chosen)
    if wanted < fps:
        assert abs(len(chosen) - frames * wanted / fps) <= 1
    assert all(after - before <= max(1, fps / wanted + 1) for before, after in pairwise(chosen))


@pytest.mark.parametrize("fps", [0.0, -24.0])
def test_a_rate_is_above_zero(fps: float) -> None:
    with pytest.raises(ConfigError, match=r"source_fps: must be a number above 0"):
        StatedRate(source_fps=fps)
    with pytest.raises(ConfigError, match=r"fps: must be a number above 0"):
        Resample(fps=fps)


@pytest.mark.parametrize("rate", [EveryFrame(), Resample(), Resample(fps=12.0), StatedRate(source_fps=30.0)])
def test_rates_survive_a_round_trip_by_their_kind(rate: FrameRate) -> None:
    assert FrameRate.from_dict(rate.to_dict()) == rate
