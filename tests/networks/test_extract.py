from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musubi.core.errors import ConfigError, WeightsError
from musubi.networks.extract import extracted, quantile


def _pair(rank: int = 3, *, name: str = "q", seed: int = 0) -> tuple[str, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(10, 8, generator=generator)
    return name, before, before + torch.randn(10, rank, generator=generator) @ torch.randn(rank, 8, generator=generator)


def test_a_low_rank_difference_is_found_whole() -> None:
    name, before, after = _pair(3)

    found = extracted([(name, before, after)], rank=3)

    torch.testing.assert_close(found["q"].delta(), after - before, rtol=1e-4, atol=1e-5)


def test_a_higher_one_is_found_as_nearly_as_the_rank_allows() -> None:
    name, before, after = _pair(6)

    found = extracted([(name, before, after)], rank=2)["q"]

    left = torch.linalg.svdvals(after - before)[2:].norm()
    torch.testing.assert_close((found.delta() - (after - before)).norm(), left, rtol=1e-4, atol=1e-5)


def test_no_more_rank_is_taken_than_a_share_of_the_norm_needs() -> None:
    assert extracted([_pair(3)], rank=8, keep=0.9999)["q"].rank == 3


def test_weights_in_half_precision_are_subtracted_in_single() -> None:
    name, before, after = _pair(3)
    before, after = before.bfloat16(), after.bfloat16()

    found = extracted([(name, before, after)], rank=8)["q"]

    torch.testing.assert_close(found.delta(), after.float() - before.float(), rtol=1e-4, atol=1e-5)


def test_what_does_not_differ_gets_no_adapter() -> None:
    _, before, _ = _pair()

    assert list(extracted([("same", before, before.clone()), _pair()], rank=2)) == ["q"]
    with pytest.raises(WeightsError, match="the checkpoints do not differ"):
        extracted([("same", before, before.clone())], rank=2)


def test_weights_of_other_shapes_are_named() -> None:
    with pytest.raises(WeightsError, match=r"q: the weights have shapes \(2, 3\) and \(3, 2\)"):
        extracted([("q", torch.zeros(2, 3), torch.zeros(3, 2))], rank=1)


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.51, 1.0), seed=st.integers(0, 9))
def test_the_quantile_is_torchs(share: float, seed: int) -> None:
    values = torch.randn(57, generator=torch.Generator().manual_seed(seed))

    assert quantile(values, share) == pytest.approx(float(torch.quantile(values, share)), abs=1e-5)


def test_the_quantile_knows_no_limit_of_size() -> None:
    many = torch.arange(17_000_000)  # torch.quantile stops at 16 million

    assert quantile(many.float(), 0.5) == pytest.approx(8_499_999.5, rel=1e-6)


@pytest.mark.parametrize(
    ("rank", "keep", "clamp", "field"), [(0, None, None, "rank"), (1, 0.0, None, "keep"), (1, None, 0.4, "clamp")]
)
def test_numbers_that_make_no_sense_are_refused(rank: int, keep: float | None, clamp: float | None, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: must be"):
        extracted([_pair()], rank=rank, keep=keep, clamp=clamp)
