from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.core.errors import DataError
from musubi.data.media.passes import Passes
from musubi.data.media.resize import Pixels

WINDOWS = st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=6).map(sorted), min_size=1, max_size=8)


class Clip:
    """Frames that are all their own number, what was decoded of them, and how often it was begun anew."""

    def __init__(self, *, damaged: int = -1) -> None:
        self.damaged, self.decoded, self.passes, self.resized = damaged, list[int](), 0, 0

    def read(self, frames: Sequence[int]) -> Iterator[Pixels]:
        assert list(frames) == sorted(set(frames)), "different numbers, ascending"
        self.passes += 1
        for number in frames:
            if number == self.damaged:
                raise DataError("damaged")
            self.decoded.append(number)
            yield np.array([number % 256], np.uint8)

    def resize(self, frame: Pixels) -> Pixels:
        self.resized += 1
        return frame

    def windows(self, windows: Sequence[Sequence[int]]) -> Passes:
        return Passes(windows, read=self.read, resize=self.resize, shape=(1,))


def shown(passes: Passes, place: int) -> list[int]:
    return [int(value) for value in passes.load(place).flatten()]


@settings(deadline=None)
@given(windows=WINDOWS, order=st.lists(st.integers(0, 7), max_size=12))
def test_windows_hold_their_frames_in_whatever_order_they_are_asked_for(
    windows: list[list[int]], order: list[int]
) -> None:
    passes = Clip().windows(windows)

    for place in [*range(len(windows)), *(number % len(windows) for number in order)]:
        assert shown(passes, place) == [number % 256 for number in windows[place]]


@pytest.mark.parametrize(
    "windows",
    [
        [range(5), range(5, 10), range(10, 15)],
        [range(5), range(1, 6), range(2, 7)],
        [(0, 0, 1, 1), (1, 2, 2), (2, 2, 2)],
        [range(5), range(90, 95)],
    ],
)
def test_each_frame_is_decoded_and_resized_once_while_windows_go_forward(windows: list[Sequence[int]]) -> None:
    clip = Clip()
    passes = clip.windows(windows)

    for place in range(len(windows)):
        passes.load(place)

    assert clip.decoded == sorted({number for window in windows for number in window})
    assert (clip.passes, clip.resized) == (1, len(clip.decoded))


def test_only_what_a_window_needs_is_decoded_for_it() -> None:
    clip = Clip()

    clip.windows([range(5), range(5, 10)]).load(0)

    assert clip.decoded == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("windows", [[range(5), range(200, 205)], [range(3, 5), range(4, 10), range(5)]])
def test_a_leap_or_a_step_back_begins_another_pass(windows: list[Sequence[int]]) -> None:
    clip = Clip()
    passes = clip.windows(windows)

    for place in range(len(windows)):
        passes.load(place)

    assert clip.passes == 2


def test_windows_around_a_damaged_frame_are_still_read() -> None:
    passes = Clip(damaged=7).windows([range(5), range(5, 10), range(10, 15)])

    assert shown(passes, 0) == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="damaged"):
        passes.load(1)
    assert shown(passes, 2) == [10, 11, 12, 13, 14]
