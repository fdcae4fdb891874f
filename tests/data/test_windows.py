from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.data.sample import Window
from musubi.data.windows import Chunk, Full, Head, Slide, Spread, Windows

FRAMES = st.integers(0, 300)
LENGTHS = st.lists(st.integers(1, 200), min_size=1, max_size=5)
KINDS = st.one_of(
    st.just(Head()),
    st.just(Chunk()),
    st.builds(Slide, stride=st.integers(1, 50)),
    st.builds(Spread, count=st.integers(1, 20)),
    st.builds(Full, max_frames=st.integers(1, 200)),
)


@settings(deadline=None, max_examples=150)
@given(kind=KINDS, frames=FRAMES, lengths=LENGTHS)
def test_windows_lie_within_the_clip_each_once_by_length_and_start(
    kind: Windows, frames: int, lengths: list[int]
) -> None:
    windows = kind.cut(frames, lengths)

    assert all(window.start >= 0 and window.count >= 1 and window.start + window.count <= frames for window in windows)
    assert list(windows) == sorted(set(windows), key=lambda window: (window.count, window.start))


@settings(deadline=None, max_examples=100)
@given(kind=KINDS.filter(lambda kind: not isinstance(kind, Full)), frames=FRAMES, lengths=LENGTHS)
def test_every_length_that_fits_is_cut_from_the_first_frame_and_no_other_length(
    kind: Windows, frames: int, lengths: list[int]
) -> None:
    windows = kind.cut(frames, lengths)

    assert {window.count for window in windows} == {length for length in lengths if length <= frames}
    assert {window.count for window in windows if window.start == 0} == {window.count for window in windows}


@settings(deadline=None, max_examples=50)
@given(frames=FRAMES, lengths=LENGTHS)
def test_head_takes_every_length_once(frames: int, lengths: list[int]) -> None:
    assert Head().cut(frames, lengths) == tuple(Window(0, n) for n in sorted(set(lengths)) if n <= frames)


@settings(deadline=None, max_examples=50)
@given(frames=st.integers(1, 300), length=st.integers(1, 100))
def test_chunks_follow_one_another_as_long_as_they_fit(frames: int, length: int) -> None:
    windows = Chunk().cut(frames, (length,))

    assert len(windows) == frames // length
    assert all(after.start == before.start + length for before, after in pairwise(windows))


@settings(deadline=None, max_examples=50)
@given(frames=st.integers(1, 300), length=st.integers(1, 100), stride=st.integers(1, 40))
def test_slide_begins_at_every_stride(frames: int, length: int, stride: int) -> None:
    windows = Slide(stride=stride).cut(frames, (length,))

    assert [window.start for window in windows] == [n for n in range(0, frames, stride) if n + length <= frames]


@settings(deadline=None, max_examples=150)
@given(frames=st.integers(1, 3000), length=st.integers(1, 100), count=st.integers(1, 60))
def test_spread_takes_the_places_that_numpy_spaces_evenly(frames: int, length: int, count: int) -> None:
    windows = Spread(count=count).cut(frames, (length,))

    spaced = np.linspace(0, frames - length, count, dtype=int)
    assert [window.start for window in windows] == (sorted(set(spaced.tolist())) if length <= frames else [])


@settings(deadline=None, max_examples=100)
@given(frames=st.integers(1, 300), most=st.integers(1, 200), step=st.integers(1, 8))
def test_full_takes_the_longest_legal_length_whatever_is_wanted(frames: int, most: int, step: int) -> None:
    (window,) = Full(max_frames=most).cut(frames, (999,), step=step)

    assert window.start == 0
    assert window.count % step == 1 % step
    assert window.count <= min(frames, most) < window.count + step


def test_a_clip_without_frames_has_no_window() -> None:
    assert Full().cut(0, (1,)) == Chunk().cut(0, (1,)) == Spread(count=3).cut(0, (1,)) == ()


def test_a_window_is_labelled_as_the_reference_labels_it() -> None:
    assert str(Window(10, 81)) == "00010-081"
    assert str(Window(123456, 1001)) == "123456-1001"


@pytest.mark.parametrize("value", [0, -1])
def test_numbers_below_one_are_refused_by_name(value: int) -> None:
    with pytest.raises(ConfigError, match=r"stride: must be a whole number of at least 1"):
        Slide(stride=value)
    with pytest.raises(ConfigError, match=r"count: must be a whole number of at least 1"):
        Spread(count=value)
    with pytest.raises(ConfigError, match=r"max_frames: must be a whole number of at least 1"):
        Full(max_frames=value)


@given(kind=KINDS)
def test_windows_survive_a_round_trip_by_their_kind(kind: Windows) -> None:
    assert Windows.from_dict(kind.to_dict()) == kind
