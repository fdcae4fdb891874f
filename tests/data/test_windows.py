from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.data.sample import Window
from musubi.data.windows import Head, Windows

lengths = st.lists(st.integers(1, 200), min_size=1, max_size=5)


@settings(deadline=None, max_examples=50)
@given(frames=st.integers(0, 300), wanted=lengths)
def test_head_takes_every_wanted_length_that_fits_once_from_the_first_frame(frames: int, wanted: list[int]) -> None:
    windows = Head().cut(frames, wanted)

    assert windows == tuple(Window(0, n) for n in sorted(set(wanted)) if n <= frames)


@settings(deadline=None, max_examples=50)
@given(frames=st.integers(0, 300), wanted=lengths)
def test_head_needs_to_know_no_more_frames_than_its_longest_window(frames: int, wanted: list[int]) -> None:
    horizon = Head().horizon(wanted)

    assert Head().cut(min(frames, horizon), wanted) == Head().cut(frames, wanted)


def test_a_window_is_labelled_as_the_reference_labels_it() -> None:
    assert str(Window(10, 81)) == "00010-081"
    assert str(Window(123456, 1001)) == "123456-1001"


def test_windows_survive_a_round_trip_by_their_kind() -> None:
    assert Windows.from_dict(Head().to_dict()) == Head()
