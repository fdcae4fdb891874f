from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.training.rng import RunRandom, mix

CPU = torch.device("cpu")


def draw(random: RunRandom, number: int) -> tuple[float, float]:
    with random.micro_batch(number) as generator:
        return float(torch.rand(1, generator=generator)), float(torch.rand(1))


@given(seed=st.integers(0, 2**63), numbers=st.lists(st.integers(0, 10**9), min_size=1, max_size=4))
def test_what_a_micro_batch_draws_does_not_depend_on_what_was_drawn_before(seed: int, numbers: list[int]) -> None:
    one, other = (RunRandom(seed, device=CPU) for _ in range(2))

    in_order = {number: draw(one, number) for number in numbers}

    assert {number: draw(other, number) for number in reversed(numbers)} == in_order


def test_seeds_micro_batches_purposes_and_attempts_draw_differently() -> None:
    drawn: list[float] = []
    for seed, attempt in itertools.product(range(3), range(3)):
        random = RunRandom(seed, device=CPU)
        random.attempt = attempt
        drawn += [number for micro in range(4) for number in draw(random, micro)]
        with random.update(0):
            drawn.append(float(torch.rand(1)))
        drawn.append(float(torch.rand(1, generator=random.shares(0))))

    assert len(set(drawn)) == len(drawn)


def test_the_callers_random_numbers_are_as_if_nothing_had_happened() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2).tolist()
    torch.manual_seed(5)

    first = float(torch.rand(1))
    draw(RunRandom(0, device=CPU), 3)

    assert [first, float(torch.rand(1))] == expected


@given(a=st.lists(st.integers(-5, 2**63), min_size=1, max_size=4), b=st.lists(st.integers(-5, 2**63), min_size=1))
def test_seeds_fit_a_generator_and_differ_with_their_numbers(a: list[int], b: list[int]) -> None:
    assert 0 <= mix(*a) < 2**63
    assert (mix(*a) == mix(*b)) == (a == b)
