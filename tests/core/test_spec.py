from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError, Issue
from musubi.core.fields import count, each, field, positive
from musubi.core.refs import WeightsRef
from musubi.core.spec import Spec


@attrs.frozen(kw_only=True)
class Animal(Spec):
    family: ClassVar[str] = "animal"


A = TypeVar("A", bound=Animal)


@attrs.frozen(kw_only=True)
class Cat(Animal):
    kind: ClassVar[str] = "cat"
    lives: int = field(default=9, check=count())


@attrs.frozen(kw_only=True)
class Fox(Animal):
    kind: ClassVar[str] = "fox"
    weight: float = field(default=6.5, check=positive)
    dens: tuple[tuple[float, float], ...] = ()


@attrs.frozen(kw_only=True)
class Zoo(Spec, Generic[A]):
    name: str
    star: A
    others: tuple[Animal, ...] = ()
    opened: int | None = 1900
    area: float | None = None
    map: Path = Path("map.png")
    photo: WeightsRef | None = None
    prices: tuple[int, ...] = field(default=(), check=each(count(0)))
    tags: tuple[tuple[str, int | None], ...] = ()

    def problems(self) -> tuple[Issue, ...]:
        crowded = len(self.others) > 5
        return (Issue("others", "too many", "five fit"),) if crowded else ()


PLUGINS = (Cat, Fox)

numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
animals = st.one_of(
    st.builds(Cat, lives=st.integers(1, 2**62)),
    st.builds(Fox, weight=st.floats(1e-9, 1e9), dens=st.lists(st.tuples(numbers, numbers), max_size=3).map(tuple)),
)
# TOML has no lone surrogates; file names have no NUL and no backslash on the systems that share configurations.
words = st.text(st.characters(exclude_categories=["Cs"]))
file_names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\"), min_size=1)
zoos = st.builds(
    Zoo,
    name=words,
    star=animals,
    others=st.lists(animals, max_size=5).map(tuple),
    opened=st.none() | st.integers(-(2**63), 2**63 - 1),
    area=st.none() | numbers,
    map=file_names.map(Path),
    photo=st.none() | file_names.map(WeightsRef),
    prices=st.lists(st.integers(0, 100), max_size=3).map(tuple),
    tags=st.lists(st.tuples(words, st.none() | st.integers(0, 9)), max_size=2).map(tuple),
)


@given(spec=zoos)
def test_a_spec_survives_toml(spec: Zoo[Animal]) -> None:
    assert Zoo[Animal].from_toml(spec.to_toml(), plugins=PLUGINS) == spec


@given(spec=zoos)
def test_a_spec_survives_json(spec: Zoo[Animal]) -> None:
    assert Zoo[Animal].from_json(spec.to_json(), plugins=PLUGINS) == spec


@given(spec=zoos)
def test_equal_specs_have_equal_fingerprints_also_after_a_file(spec: Zoo[Animal]) -> None:
    again = Zoo[Animal].from_toml(spec.to_toml(), plugins=PLUGINS)

    assert again.fingerprint() == spec.fingerprint()


@given(lives=st.integers(1, 100), other=st.integers(1, 100))
def test_specs_of_other_content_have_other_fingerprints(lives: int, other: int) -> None:
    same = Cat(lives=lives).fingerprint() == Cat(lives=other).fingerprint()

    assert same == (lives == other)


@given(spec=zoos)
def test_a_repr_evaluates_back(spec: Zoo[Animal]) -> None:
    from pathlib import PosixPath, WindowsPath  # what repr(Path(...)) names

    names = {c.__name__: c for c in (Zoo, Cat, Fox, WeightsRef, PosixPath, WindowsPath)}

    assert eval(repr(spec), names) == spec


def test_the_kind_of_a_strategy_is_written_and_decides_the_class() -> None:
    zoo = Zoo(name="z", star=Fox(weight=3))

    assert zoo.to_dict()["star"] == {"kind": "fox", "weight": 3.0, "dens": []}
    assert isinstance(Zoo[Animal].from_dict(zoo.to_dict(), plugins=PLUGINS).star, Fox)


def test_a_class_reads_its_own_file_without_being_named_a_plugin() -> None:
    assert Fox.from_toml(Fox(weight=2.0).to_toml()) == Fox(weight=2.0)


def test_none_is_left_out_where_it_is_the_default_and_written_where_it_is_not() -> None:
    values = Zoo(name="z", star=Cat(), opened=None).to_dict()

    assert values["opened"] == "none"
    assert "area" not in values
    assert "photo" not in values


def test_numbers_lists_and_paths_take_their_declared_form() -> None:
    loose = Zoo(name="z", star=Fox(weight=3), area=4, map="m/p.png", prices=[1, 2])  # type: ignore[arg-type]

    assert loose == Zoo(name="z", star=Fox(weight=3.0), area=4.0, map=Path("m/p.png"), prices=(1, 2))
    assert isinstance(loose.area, float)
    assert isinstance(loose.map, Path)


def test_replace_returns_a_changed_copy_and_keeps_the_original() -> None:
    before = Cat(lives=9)

    after = before.replace(lives=8)

    assert (before.lives, after.lives) == (9, 8)


def test_replace_checks_the_new_value() -> None:
    with pytest.raises(ConfigError, match="lives: must be a whole number of at least 1, got 0"):
        Cat().replace(lives=0)


def test_replace_names_the_field_that_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"livs: no such field; did you mean 'lives'\?"):
        Cat().replace(livs=3)


def test_a_constructor_reports_every_bad_field_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Zoo(name="z", star=Cat(), prices=(1, -1), others=(Cat(),) * 6)

    assert [issue.path for issue in caught.value.issues] == ["prices"]
    assert "[1] must be a whole number" in str(caught.value)


def test_problems_of_the_whole_are_reported_when_the_fields_are_good() -> None:
    with pytest.raises(ConfigError, match=r"Zoo: others: too many \(hint: five fit\)"):
        Zoo(name="z", star=Cat(), others=(Cat(),) * 6)


def test_specs_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Cat().lives = 3  # type: ignore[misc]


@pytest.mark.parametrize("suffix", [".toml", ".json", ".TOML"])
def test_a_saved_spec_loads(tmp_path: Path, suffix: str) -> None:
    zoo = Zoo(name="Müller's „Zoo“ 動物園", star=Fox(), others=(Cat(),))

    path = zoo.save(tmp_path / f"new folder/zoo{suffix}")

    assert Zoo[Animal].load(path, plugins=PLUGINS) == zoo


def test_loading_names_the_file_and_all_that_is_wrong_in_it(tmp_path: Path) -> None:
    path = tmp_path / "zoo.toml"
    path.write_text('nam = "z"\nstar = {kind = "fox", weight = "much"}\nopened = 1.5\n', encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        Zoo[Animal].load(path, plugins=PLUGINS)

    assert path.as_posix() in str(caught.value)
    assert [issue.path for issue in caught.value.issues] == ["nam", "name", "star.weight", "opened"]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must end in \.toml or \.json"):
        Cat.load(tmp_path / "cat.yaml")


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        Cat.load(tmp_path / "nowhere.toml")


def test_a_file_that_is_not_text_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "cat.toml").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigError, match=r"cat\.toml"):
        Cat.load(tmp_path / "cat.toml")


def test_a_card_escapes_what_it_shows() -> None:
    html = Zoo(name="<script>alert(1)</script>", star=Cat())._repr_html_()

    assert "<script>" not in html
    assert "&lt;script&gt;" in html
