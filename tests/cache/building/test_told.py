from __future__ import annotations

import pytest

from musubi.cache.building.told import Teller
from musubi.core.errors import Issue
from musubi.core.events import Event, Warned


def test_what_is_told_is_heard_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []
    tell = Teller((heard.append, heard.append))

    tell.warn("careful")
    tell.left_out([Issue("a.png", "is damaged")])

    assert [event.message for event in heard if isinstance(event, Warned)] == [
        *["careful"] * 2,
        *["a.png: is damaged"] * 2,
    ]
    assert caplog.messages == ["careful", "left out: a.png: is damaged"]


def test_notes_of_a_kind_are_told_together_and_name_the_first_few() -> None:
    heard: list[Event] = []
    notes = [Issue(f"{n}.png", "enlarged", "take a larger one") for n in range(10)]

    Teller((heard.append,)).notes([*notes, Issue("a.mp4", "retimed", "from 25 to 16")])

    assert [event.message for event in heard if isinstance(event, Warned)] == [
        f"enlarged, 10 files: {', '.join(note.path for note in notes[:8])} and 2 more",
        "a.mp4: retimed (hint: from 25 to 16)",
    ]


def test_many_of_a_kind_are_heard_one_by_one_and_logged_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    Teller((heard.append,)).left_out([Issue(f"{n}.png", "caption is missing", "write it") for n in range(500)])

    assert len(heard) == 500
    assert len(caplog.messages) == 1
    assert caplog.messages[0].endswith("and 492 more (hint: write it)")
