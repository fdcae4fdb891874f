from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.noise.strata import shares


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(count=st.integers(0, 60), strata=st.integers(2, 20), seed=st.integers(0, 99))
def test_no_part_has_two_draws_more_than_another(count: int, strata: int, seed: int) -> None:
    drawn = shares(count, strata, generator=generator(seed))

    assert (drawn.shape, drawn.dtype) == ((count,), torch.float64)
    counts = torch.histc(drawn.float(), bins=strata, min=0, max=1)
    assert counts.max() - counts.min() <= 1


def test_the_parts_come_in_no_order() -> None:
    drawn = shares(100, 10, generator=generator())

    assert (drawn.diff() > 0).sum() in range(30, 70)


def test_equal_generators_draw_equally() -> None:
    assert torch.equal(shares(7, 3, generator=generator(5)), shares(7, 3, generator=generator(5)))
    assert not torch.equal(shares(7, 3, generator=generator(5)), shares(7, 3, generator=generator(6)))


def test_a_single_draw_is_uniform() -> None:
    drawn = torch.cat([shares(1, 5, generator=generator(seed)) for seed in range(2_000)])

    torch.testing.assert_close(
        drawn.quantile(torch.tensor([0.1, 0.5, 0.9]).double()),
        torch.tensor([0.1, 0.5, 0.9]).double(),
        atol=0.04,
        rtol=0,
    )
