from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError
from musubi.core.events import Validated
from musubi.training.validation import Best, Validation

levels = st.lists(st.floats(0.001, 1), min_size=1, max_size=9, unique=True).map(sorted).map(tuple)


def measured(*losses: float) -> list[Validated]:
    return [Validated(step=10 * i, loss=loss, bands=(), best=False) for i, loss in enumerate(losses, start=1)]


@given(sigmas=levels)
def test_bands_join_without_gaps_and_each_holds_its_level(sigmas: tuple[float, ...]) -> None:
    bands = Validation(sigmas=sigmas).bands

    assert all(low <= sigma <= high for (low, high), sigma in zip(bands, sigmas, strict=True))
    assert all(one[1] == other[0] for one, other in pairwise(bands))
    assert bands[0][0] >= 0
    assert bands[-1][1] <= 1


@pytest.mark.parametrize("number", [1, 2, 5, 10])
def test_an_even_grid_of_centres_covers_the_path_in_equal_bands(number: int) -> None:
    bands = Validation(sigmas=tuple((i + 0.5) / number for i in range(number))).bands

    assert [edge for band in bands for edge in band] == pytest.approx(
        [edge / number for i in range(number) for edge in (i, i + 1)]
    )


def test_levels_at_one_end_do_not_claim_the_whole_path() -> None:
    ((low, middle), (_, high)) = Validation(sigmas=(0.9, 0.95)).bands

    assert (low, middle, high) == pytest.approx((0.875, 0.925, 0.975))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"sigmas": (0.5, 0.2)}, "sigmas"),
        ({"sigmas": (0.5, 0.5)}, "sigmas"),
        ({"sigmas": ()}, "sigmas"),
        ({"sigmas": (0.0, 0.5)}, "sigmas"),
        ({"sigmas": (0.5, 1.5)}, "sigmas"),
        ({"sigmas": (float("nan"),)}, "sigmas"),
        ({"every": 0}, "every"),
        ({"every_epochs": 0}, "every_epochs"),
        ({"items": 0}, "items"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(wrong: dict[str, tuple[float, ...]], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"Validation: {field}: "):
        Validation(**wrong)  # type: ignore[arg-type]


@given(spec=st.builds(Validation, every=st.none() | st.integers(1, 9), sigmas=levels, seed=st.integers(0, 2**40)))
def test_a_validation_survives_toml(spec: Validation) -> None:
    assert Validation.from_toml(spec.to_toml()) == spec


def test_the_best_is_the_lowest_and_of_equals_the_earliest() -> None:
    assert Best.of(measured(0.5, 0.3, 0.4, 0.3)) == Best(loss=0.3, step=20)
    assert Best.of([]) is None


def test_what_is_not_finite_is_never_the_best() -> None:
    assert Best.of(measured(float("nan"), 0.4, -float("inf"))) == Best(loss=0.4, step=20)
    assert Best.of(measured(float("nan"))) is None
