from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Generic, Literal, TypeVar

import attrs
import pytest

from musubi.core.declared import fits, mistaken
from musubi.core.spec import Spec


@attrs.frozen(kw_only=True)
class Wheel(Spec):
    family: ClassVar[str] = "wheel"


W = TypeVar("W", bound=Wheel)


@attrs.frozen(kw_only=True)
class Cart(Spec, Generic[W]):
    front: W
    wheels: tuple[Wheel, ...] = ()
    size: tuple[int, int] = (1, 1)
    cargo: float | None = None
    place: Path = Path()
    colour: Literal["red", "blue"] = "red"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("front", "round", "front: must be a Wheel, got 'round'"),
        ("wheels", (Wheel(), Wheel), "wheels[1]: must be a Wheel, got the class Wheel; write Wheel(...)"),
        ("wheels", Wheel(), "wheels: must be a tuple, each member a Wheel, got Wheel()"),
        ("size", (1,), "size: must be (a whole number, a whole number), got (1,)"),
        ("size", (1, 2.5), "size: must be (a whole number, a whole number), got (1, 2.5)"),
        ("cargo", "much", "cargo: must be a number or None, got 'much'"),
        ("cargo", True, "cargo: must be a number or None, got True"),
        ("place", 3, "place: must be a path, got 3"),
        ("colour", 3, "colour: must be one of red, blue, got 3"),
    ],
)
def test_a_value_of_another_type_is_named_with_what_is_wanted(field: str, value: object, says: str) -> None:
    assert [str(issue) for issue in mistaken(Cart, {field: value})] == [says]


@pytest.mark.parametrize(
    ("field", "value"), [("front", Wheel()), ("wheels", ()), ("cargo", 3), ("load", None), ("colour", "green")]
)
def test_what_fits_is_no_mistake_and_choices_are_left_to_their_own_check(field: str, value: object) -> None:
    assert mistaken(Cart, {field: value}) == []


def test_a_hint_that_cannot_be_resolved_is_not_looked_at() -> None:
    @attrs.frozen(kw_only=True)
    class Plugin(Spec):
        model: OnlyForTypeCheckers  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore

    assert Plugin(model=3).model == 3


def test_an_unknown_form_of_hint_fits_everything() -> None:
    assert fits(3, "a text in place of a type")
