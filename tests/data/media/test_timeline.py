from __future__ import annotations

import math
from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.data.media.timeline import Timeline, demuxed, indexed, regular
from tests.data.clips import CLOSED_GROUPS, NO_REORDERING, OPEN_GROUPS, film

RATES = st.sampled_from([Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25), Fraction(16), Fraction(60)])
BASES = st.sampled_from([Fraction(1, 1000), Fraction(1, 600), Fraction(1, 90000), Fraction(1, 12288)])


@settings(deadline=None, max_examples=60)
@given(rate=RATES, base=BASES, frames=st.integers(2, 400), start=st.integers(-5000, 5000), down=st.booleans())
def test_times_rounded_to_a_time_base_are_evenly_spaced(
    rate: Fraction, base: Fraction, frames: int, start: int, *, down: bool
) -> None:
    settle = math.floor if down else round
    timeline = Timeline(frames=frames, ticks=[start + settle(n / rate / base) for n in range(frames)])

    fps, times = timeline.pace(time_base=float(base), stated=float(rate))

    assert (fps, times) == (float(rate), ())


@settings(deadline=None, max_examples=40)
@given(gaps=st.lists(st.sampled_from([33, 50, 100, 200]), min_size=6, max_size=80).filter(lambda g: len(set(g)) > 1))
def test_uneven_times_are_told_as_they_are(gaps: list[int]) -> None:
    ticks = [sum(gaps[:n]) for n in range(len(gaps) + 1)]

    fps, times = Timeline(frames=len(ticks), ticks=ticks).pace(time_base=0.001, stated=30.0)

    assert times == pytest.approx([tick / 1000 for tick in ticks])
    assert fps == pytest.approx(len(gaps) / times[-1])


def test_a_wrong_stated_rate_is_not_believed() -> None:
    assert Timeline(frames=50, ticks=range(0, 2000, 40)).pace(time_base=0.001, stated=90000.0) == (25.0, ())
    assert Timeline(frames=50, ticks=range(0, 2000, 40)).pace(time_base=0.001, stated=0.0) == (25.0, ())


@pytest.mark.parametrize("ticks", [(), (7,), (5, 5, 5), (0, 40, 3_000_000, 3_000_040)])
def test_times_that_cannot_be_leave_the_stated_rate(ticks: tuple[int, ...]) -> None:
    assert Timeline(frames=4, ticks=ticks).pace(time_base=0.001, stated=25.0) == (25.0, ())


@settings(deadline=None, max_examples=60)
@given(
    ticks=st.lists(st.integers(-50, 50), min_size=1, max_size=30, unique=True).map(sorted), tick=st.integers(-60, 60)
)
def test_a_tick_tells_a_frame_and_where_to_begin(ticks: list[int], tick: int) -> None:
    timeline = Timeline(frames=len(ticks), ticks=ticks, keys=ticks[::3], exact=True)

    assert timeline.number(tick) == (ticks.index(tick) if tick in ticks else None)
    assert list(timeline.keys_before(tick)) == [key for key in reversed(ticks[::3]) if key <= tick]
    assert timeline.until(tick).ticks == ticks[: bisect_right(ticks, tick - 1)]


def test_a_timeline_begins_at_the_first_frame_that_can_be_decoded() -> None:
    timeline = Timeline(frames=4, ticks=(1, 3, 5, 7), exact=True)

    assert timeline.starting(5) == Timeline(frames=2, ticks=(5, 7), exact=True)
    assert not timeline.starting(4).exact
    assert not timeline.starting(None).exact


@pytest.mark.parametrize("options", [OPEN_GROUPS, CLOSED_GROUPS, NO_REORDERING])
def test_the_index_tells_what_the_packets_tell(tmp_path: Path, options: dict[str, str]) -> None:
    with av.open(film(tmp_path / "a.mp4", options=options)) as container:
        stream = container.streams.video[0]
        found = indexed(container, stream)
        told = demuxed(container, stream)

    assert found is not None
    assert found.exact == (options is NO_REORDERING)
    at_once = regular(found, told.ticks[0])
    assert (list(at_once.ticks), at_once.exact, len(at_once.keys)) == (told.ticks, True, len(told.keys))


def test_packets_are_read_as_far_as_it_takes_to_be_certain_of_a_frame(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", options=OPEN_GROUPS)
    with av.open(path) as container:
        whole = demuxed(container, container.streams.video[0])
    with av.open(path) as container:
        part = demuxed(container, container.streams.video[0], until=20)

    assert 20 < part.frames < whole.frames == 70
    assert part.ticks[:21] == whole.ticks[:21]


def test_times_made_up_by_a_container_that_has_none_are_not_exact(tmp_path: Path) -> None:
    with av.open(film(tmp_path / "a.avi", options=CLOSED_GROUPS)) as container:
        assert not demuxed(container, container.streams.video[0]).exact
