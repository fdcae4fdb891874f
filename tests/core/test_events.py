from __future__ import annotations

import inspect

import attrs
import pytest

from musubi.core import events
from musubi.core.events import Event, Finished, Progress, StepEnded

EVENTS = [c for _, c in inspect.getmembers(events, inspect.isclass) if issubclass(c, Event)]


@pytest.mark.parametrize("event", EVENTS)
def test_events_are_frozen_documented_values_with_named_fields(event: type[Event]) -> None:
    assert attrs.has(event)
    assert event.__doc__
    assert event.__setattr__ is not object.__setattr__
    assert all(attribute.kw_only for attribute in attrs.fields(event))


def test_events_are_told_apart_by_matching() -> None:
    def heard(event: Event) -> str:
        match event:
            case StepEnded(step=step, loss=loss):
                return f"{step}: {loss}"
            case Finished(reason=reason):
                return reason
            case _:
                return "else"

    step = StepEnded(
        step=3, total=9, epoch=1, loss=0.5, lr=1e-4, grad_norm=1.0, sigma=(0.5,), items=("a",), bucket="64x64x1"
    )

    assert [heard(e) for e in (step, Finished(step=3, reason="cancelled"), Progress(task="t", done=1, total=2))] == [
        "3: 0.5",
        "cancelled",
        "else",
    ]


def test_equal_events_are_equal() -> None:
    assert Progress(task="encode", done=1, total=2) == Progress(task="encode", done=1, total=2)
