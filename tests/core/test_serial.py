from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.core import serial
from musubi.core.errors import ConfigError
from musubi.core.fields import count, field
from musubi.core.spec import Spec


@attrs.frozen(kw_only=True)
class Wheel(Spec):
    family: ClassVar[str] = "wheel"


@attrs.frozen(kw_only=True)
class Round(Wheel):
    kind: ClassVar[str] = "round"
    spokes: int = field(default=8, check=count(3))


@attrs.frozen(kw_only=True)
class Plain:
    note: str = ""


@attrs.frozen(kw_only=True)
class Cart(Spec):
    wheels: tuple[Wheel, ...]
    size: tuple[int, int] = (1, 2)
    colour: Literal["red", "blue"] = "red"
    speed: int | float = 1
    loads: Mapping[str, float] = attrs.field(factory=dict)
    locked: bool = False
    plain: Plain = attrs.field(factory=Plain)
    length: int = field(default=4, check=count())


def problems(values: object, plugins: tuple[type, ...] = (Round,)) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        serial.structure(values, Cart, plugins=plugins)
    return {issue.path: f"{issue.message} {issue.hint}" for issue in caught.value.issues}


def test_every_problem_is_reported_under_its_nested_path() -> None:
    found = problems(
        {
            "wheels": [{"kind": "round"}, {"kind": "round", "spokes": 2}, {"kind": "round", "spoks": 9}, 7],
            "size": [1],
            "colour": "bleu",
            "loads": {"hay": "heavy"},
            "locked": 1,
            "plain": {"note": 3, "extra": 1},
            "length": 0,
            "brake": True,
        }
    )

    assert set(found) == {
        "brake", "wheels[1].spokes", "wheels[2].spoks", "wheels[3]", "size", "colour", "loads.hay", "locked",
        "plain.extra", "plain.note", "length",
    }  # fmt: skip
    assert "did you mean 'spokes'?" in found["wheels[2].spoks"]
    assert "did you mean 'blue'?" in found["colour"]
    assert found["size"].startswith("must be a list of 2")
    assert "true or false" in found["locked"]


def test_a_missing_field_is_named() -> None:
    assert "wheels" in problems({})


@pytest.mark.parametrize("values", [[], "text", 3, None])
def test_what_is_not_a_table_is_refused(values: object) -> None:
    assert problems(values) == {"": f"must be a table, got {values!r} "}


@pytest.mark.parametrize("wrong", [True, 2.0, "2", None, [2]])
def test_a_whole_number_is_nothing_else(wrong: object) -> None:
    assert "must be a whole number" in problems({"wheels": [], "length": wrong})["length"]


def test_whole_and_broken_numbers_stay_what_they_are_where_both_are_allowed() -> None:
    cart = Cart(wheels=(), speed=1.0)

    again = serial.structure(cart.to_dict(), Cart)

    assert isinstance(again.speed, float)
    assert isinstance(serial.structure({"wheels": [], "speed": 1}, Cart).speed, int)


def test_an_unknown_kind_names_the_nearest_and_the_way_out() -> None:
    found = problems({"wheels": [{"kind": "ruond"}]})

    assert "did you mean 'round'?" in found["wheels[0].kind"]
    assert "plugins=" in found["wheels[0].kind"]


def test_a_strategy_without_a_kind_is_told_so() -> None:
    assert "is missing" in problems({"wheels": [{}]})["wheels[0].kind"]


def test_a_record_without_kinds_refuses_one() -> None:
    assert "has no kinds" in problems({"wheels": [], "plain": {"kind": "os.system"}})["plain.kind"]


@given(kind=st.sampled_from(["os:system", "musubi.core.spec:Spec", "builtins.eval", "round:Round", "../x"]))
def test_a_file_can_never_name_an_import_path(kind: str) -> None:
    assert "wheels[0].kind" in problems({"wheels": [{"kind": kind}]})


def test_a_plugin_of_another_family_is_not_taken() -> None:
    class Impostor(Spec):
        family: ClassVar[str] = "engine"
        kind: ClassVar[str] = "round"

    assert "wheels[0].kind" in problems({"wheels": [{"kind": "round"}]}, plugins=(Impostor,))


def test_a_kind_that_does_not_fit_the_field_is_refused() -> None:
    @attrs.frozen(kw_only=True)
    class Garage(Spec):
        spare: Round

    @attrs.frozen(kw_only=True)
    class Square(Wheel):
        kind: ClassVar[str] = "square"

    with pytest.raises(ConfigError, match=r"spare\.kind: 'square' does not fit here \(hint: a Round is wanted\)"):
        serial.structure({"spare": {"kind": "square"}}, Garage, plugins=[Square])


@pytest.mark.parametrize("text", ["a = ", "[x", "a = 1\na = 2"])
def test_bad_toml_is_a_config_error_with_the_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"not valid TOML: .*at "):
        serial.parse_toml(text)


def test_bad_json_is_a_config_error_with_the_line() -> None:
    with pytest.raises(ConfigError, match="line 1"):
        serial.parse_json("{")


@given(
    values=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    )
)
def test_whatever_a_file_contains_the_answer_is_a_spec_or_a_config_error(values: Any) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(
            serial.structure({"wheels": [], "loads": values, "plain": values, "speed": values}, Cart), Cart
        )
