from __future__ import annotations

import math

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from musubi.core.errors import ConfigError, WeightsError
from musubi.networks.post_hoc import averaged, exponent, linear_decays, power_decays, width
from tests.networks.weighted import KINDS, lora, weights_of


@given(sigma_rel=st.floats(0.01, 0.3))
def test_the_exponent_solves_the_papers_cubic(sigma_rel: float) -> None:
    gamma = exponent(sigma_rel)

    assert width(gamma) == pytest.approx(sigma_rel, rel=1e-9)
    t = sigma_rel**-2
    assert abs(np.polyval([1, 7, 16 - t, 12 - t], gamma)) < 1e-6 * t * max(1, gamma) ** 2


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 0.301, 0.5, math.nan])
def test_a_profile_that_does_not_exist_is_refused(sigma_rel: float) -> None:
    with pytest.raises(ConfigError, match=r"sigma_rel: must be above 0 and at most 0\.3003"):
        exponent(sigma_rel)


def test_the_width_of_a_uniform_profile_gives_the_plain_mean() -> None:
    files = [{"q": lora(seed=seed)} for seed in range(5)]

    (mean,) = averaged(files, power_decays(5, 1 / math.sqrt(12))).values()

    expected = torch.stack([file["q"].down for file in files]).mean(0)
    torch.testing.assert_close(mean.tensors()["down"], expected)


@given(count=st.integers(2, 12), sigma_rel=st.floats(0.02, 0.3))
def test_every_file_counts_in_a_power_profile(count: int, sigma_rel: float) -> None:
    assert all(0 < decay < 1 for decay in power_decays(count, sigma_rel))


def test_linear_decays_run_from_one_number_to_the_other() -> None:
    assert linear_decays(5, 0.5, 0.8) == pytest.approx((0.5, 0.6, 0.7, 0.8))
    assert linear_decays(2, 0.5, 0.8) == (0.5,)


@pytest.mark.parametrize(("first", "last"), [(-0.1, 0.5), (0.5, 1.1)])
def test_decays_outside_0_to_1_are_refused(first: float, last: float) -> None:
    with pytest.raises(ConfigError, match="must be from 0 to 1"):
        linear_decays(3, first, last)


@pytest.mark.parametrize("kind", KINDS)
def test_every_matrix_of_every_kind_is_averaged(kind: str) -> None:
    first = weights_of(kind)
    second = first.replaced(lambda tensor: tensor + 1)

    (mean,) = averaged([{"q": first}, {"q": second}], [0.25]).values()

    for role, tensor in first.tensors().items():
        torch.testing.assert_close(mean.tensors()[role], tensor if role == "alpha" else tensor + 0.75)


def test_half_precision_is_averaged_in_single_and_rounded_once() -> None:
    files = [{"q": lora(seed=seed).to(torch.bfloat16)} for seed in range(9)]

    (mean,) = averaged(files, [0.9] * 8).values()

    expected = files[0]["q"].down.float()
    for file in files[1:]:
        expected = 0.9 * expected + 0.1 * file["q"].down.float()
    assert mean.tensors()["down"].dtype == torch.bfloat16
    torch.testing.assert_close(mean.tensors()["down"].float(), expected, rtol=2**-8, atol=0)


def test_all_differences_of_the_files_are_listed() -> None:
    first = {"a": lora(), "b": lora(), "c": lora(rank=3), "d": lora()}
    second = {"a": lora(), "c": lora(rank=2), "d": attrs.evolve(lora(), alpha=torch.tensor(7.0)), "e": lora()}

    with pytest.raises(WeightsError) as caught:
        averaged([first, second], [0.5])

    problems = {issue.path: issue.message for issue in caught.value.issues}
    assert problems == {
        "b": "is missing in file 2",
        "e": "is in file 2, not in the first",
        "c": "has other shapes in file 2",
        "d": "has other alphas in the first file and file 2: 2 and 7",
    }
