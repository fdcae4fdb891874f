from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.training.rng import RunRandom


def draw(random: RunRandom) -> tuple[float, float]:
    noise = float(torch.rand(1, generator=random.noise))
    with random.swapped_in():
        return noise, float(torch.rand(1))


@given(seed=st.integers(0, 2**63), before=st.integers(0, 5))
def test_a_restored_state_continues_the_same_sequence(seed: int, before: int) -> None:
    one, other = (RunRandom(seed, device=torch.device("cpu")) for _ in range(2))
    for _ in range(before):
        draw(one)
    state = one.state()
    expected = [draw(one) for _ in range(3)]

    other.restore(state)

    assert [draw(other) for _ in range(3)] == expected


def test_ranks_seeds_and_purposes_draw_differently() -> None:
    cpu = torch.device("cpu")
    randoms = [RunRandom(seed, device=cpu, rank=rank) for seed in range(3) for rank in range(3)]

    drawn = [number for random in randoms for number in draw(random)]

    assert len(set(drawn)) == len(drawn)
