from __future__ import annotations

import pytest

from musubi.optim.relative_step import relative_rate


def _group(**options: object) -> dict[str, object]:
    return {"lr": 1.0, "warmup_init": False, "scale_parameter": False, "eps": (1e-30, 1e-3), **options}


def test_the_rate_is_a_hundredth_until_the_inverse_root_is_lower() -> None:
    rates = [relative_rate(_group(), {"step": step}) for step in (1, 10_000, 40_000)]

    assert rates == pytest.approx([0.01, 0.01, 0.005])


def test_a_warm_up_begins_at_a_millionth() -> None:
    assert relative_rate(_group(warmup_init=True), {"step": 3}) == pytest.approx(3e-6)


def test_the_rate_may_follow_the_size_of_the_tensor_down_to_a_limit() -> None:
    scaled = _group(scale_parameter=True)

    assert relative_rate(scaled, {"step": 1, "RMS": 0.5}) == pytest.approx(0.005)
    assert relative_rate(scaled, {"step": 1, "RMS": 0.0}) == pytest.approx(1e-5)


def test_a_group_multiplies_the_rate() -> None:
    assert relative_rate(_group(lr=16.0), {"step": 1}) == pytest.approx(0.16)
