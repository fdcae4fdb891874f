from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from musubi.core.errors import ConfigError
from musubi.networks.trained import Trained
from musubi.parameters import ParameterGroup
from musubi.training.ema import EMA, Averages


class Weights(Trained):
    """A model's own weights, trained in two groups; one parameter is frozen."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 5, dtype=dtype), nn.Linear(5, 3, dtype=dtype)
        self.frozen = nn.Parameter(torch.ones(4, dtype=dtype), requires_grad=False)

    def groups(self) -> tuple[ParameterGroup, ...]:
        return (
            ParameterGroup(name="plus", parameters=tuple(self.up.parameters()), rate=4.0),
            ParameterGroup(name="rest", parameters=tuple(self.down.parameters())),
        )

    @contextmanager
    def attached(self, model: nn.Module) -> Generator[None]:
        yield

    @contextmanager
    def switched_off(self) -> Generator[None]:
        yield

    @property
    def zero_effect(self) -> bool:
        return False


def train(weights: Weights, seed: int) -> None:
    """Stand for an optimiser's step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in weights.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter))


def values(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in weights.named_parameters()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_average_follows_its_recursion_in_float32() -> None:
    weights, spec = Weights(), EMA(decay=0.5)
    averages = Averages(spec, weights)
    expected = values(weights)["up.weight"].double()

    for step in range(1, 30):
        train(weights, step)
        averages.update(step)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * weights.up.weight.detach().double()

    torch.testing.assert_close(averages.state_dict()["up.weight"].double(), expected, rtol=1e-6, atol=1e-6)
    assert set(averages.state_dict()) == {"up.weight", "up.bias", "down.weight", "down.bias"}


def test_weights_that_stay_the_same_are_their_own_average() -> None:
    weights = Weights(torch.bfloat16)
    averages = Averages(EMA(), weights)

    for step in range(1, 5):
        averages.update(step)

    assert torch.equal(averages.state_dict()["down.weight"].bfloat16(), weights.down.weight)


@given(step=st.integers(1, 10_000), every=st.integers(1, 20), decay=st.floats(0, 0.99999))
def test_moving_less_often_forgets_as_much_and_never_more_than_asked(step: int, every: int, decay: float) -> None:
    often, seldom = EMA(decay=decay), EMA(decay=decay, every=every)

    assert seldom.kept(step) == pytest.approx(often.kept(step) ** every)
    assert 0 <= often.kept(step) <= decay
    assert EMA(decay=decay, warmup=False).kept(step) == decay


def test_between_its_moves_the_average_stands_still() -> None:
    weights = Weights()
    averages = Averages(EMA(every=3), weights)
    seen = []

    for step in range(1, 7):
        train(weights, step)
        averages.update(step)
        seen.append(averages.state_dict())

    moved = [not equal(before, after) for before, after in pairwise(seen)]
    assert moved == [False, True, False, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("on_host", [False, True])
def test_the_model_computes_with_the_averages_inside_and_with_its_own_weights_after(
    dtype: torch.dtype, on_host: bool
) -> None:
    weights = Weights(dtype)
    averages = Averages(EMA(on_host=on_host), weights)
    train(weights, 1)
    averages.update(1)
    before, places = values(weights), [parameter.data_ptr() for parameter in weights.parameters()]

    with averages.swapped_in():
        inside = values(weights)

    means = averages.state_dict()
    assert all(torch.equal(inside[name], means[name].to(dtype)) for name in means)
    assert not torch.equal(inside["up.weight"], before["up.weight"])
    assert torch.equal(inside["frozen"], before["frozen"])
    assert equal(values(weights), before)
    assert [parameter.data_ptr() for parameter in weights.parameters()] == places


def test_the_weights_come_back_after_an_error_inside_too() -> None:
    weights = Weights()
    averages = Averages(EMA(), weights)
    train(weights, 1)
    before = values(weights)

    with pytest.raises(ZeroDivisionError), averages.swapped_in():
        raise ZeroDivisionError

    assert equal(values(weights), before)


def test_training_goes_on_after_the_averages_were_used() -> None:
    weights = Weights()
    averages = Averages(EMA(), weights)

    with averages.swapped_in():
        assert weights.up(torch.ones(1, 3)).shape == (1, 5)
    weights.up(torch.ones(1, 3)).sum().backward()

    assert weights.up.weight.grad is not None
    assert weights.up.weight.requires_grad


def test_averages_resumed_midway_equal_undisturbed_ones_bit_for_bit() -> None:
    weights = Weights(torch.bfloat16)
    averages = Averages(EMA(decay=0.9, every=2), weights)
    other = copy.deepcopy(weights)

    for step in range(1, 8):
        train(weights, step)
        averages.update(step)
        if step == 5:
            kept, other = averages.state_dict(), copy.deepcopy(weights)
    resumed = Averages(EMA(decay=0.9, every=2), other)
    resumed.load_state_dict(kept)
    for step in (6, 7):
        train(other, step)
        resumed.update(step)

    assert equal(resumed.state_dict(), averages.state_dict())


def test_a_state_is_a_copy_that_later_steps_do_not_move() -> None:
    weights = Weights()
    averages = Averages(EMA(), weights)
    kept = averages.state_dict()
    before = {name: tensor.clone() for name, tensor in kept.items()}

    train(weights, 1)
    averages.update(1)

    assert equal(kept, before)


@pytest.mark.parametrize("change", ["fewer", "shape"])
def test_averages_of_other_parameters_are_refused_by_name(change: str) -> None:
    averages = Averages(EMA(), Weights())
    state = averages.state_dict()
    state |= {"up.bias": torch.zeros(7)}
    if change == "fewer":
        del state["up.bias"]

    with pytest.raises(ValueError, match=r"up\.bias \(1 differ\)"):
        averages.load_state_dict(state)


def test_an_average_that_keeps_nothing_is_the_newest_weights() -> None:
    one, other = Weights(), Weights()
    other.load_state_dict(one.state_dict())
    averages = Averages(EMA(decay=0.0, warmup=False), one)

    train(one, 1)
    averages.update(1)
    with averages.swapped_in():
        saved = values(one)
    train(other, 1)

    assert equal(saved, values(other))


@pytest.mark.parametrize("wrong", [{"decay": 1.0}, {"decay": -0.1}, {"every": 0}, {"decay": True}])
def test_what_is_no_average_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EMA(**wrong)  # type: ignore[arg-type]


@given(spec=st.builds(EMA, decay=st.floats(0, 0.999), warmup=st.booleans(), every=st.integers(1, 9)))
def test_an_average_survives_toml(spec: EMA) -> None:
    assert EMA.from_toml(spec.to_toml()) == spec
