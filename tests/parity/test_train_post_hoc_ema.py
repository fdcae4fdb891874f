"""Averages over checkpoints are the reference's, but for the first checkpoint, which ours does not drop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from musubi.core.errors import ConfigError
from musubi.networks.file import LoRAFile
from musubi.networks.post_hoc import exponent, linear_decays, power_decays, width
from musubi.networks.weights import LoRAWeights
from tests.parity.cases import vector_cases

CASES = vector_cases("train_post_hoc_ema")
WIDEST = 0.3003


def _each(kind: str) -> pytest.MarkDecorator:
    cases = [case for case in CASES if case["kind"] == kind]
    return pytest.mark.parametrize("case", cases, ids=[case["id"] for case in cases])


@_each("sigma_rel_to_gamma")
def test_train_post_hoc_ema_exponents_equal_the_reference(case: dict[str, Any]) -> None:
    sigma_rel = case["sigma_rel"]

    if "gamma" in case:
        assert exponent(sigma_rel) == pytest.approx(case["gamma"], rel=1e-6)
    elif sigma_rel <= WIDEST:  # it crashes from 1 / sqrt(12) on (spec/training.md 8.1, 16), where the root is negative
        assert -0.4 < exponent(sigma_rel) < 0
        assert width(exponent(sigma_rel)) == pytest.approx(sigma_rel)
    else:
        with pytest.raises(ConfigError, match="must be above 0 and at most"):
            exponent(sigma_rel)


@_each("ema")
def test_train_post_hoc_ema_averages_equal_the_reference(case: dict[str, Any], tmp_path: Path) -> None:
    if "error" in case:
        pytest.skip("the reference crashes there; test_..._exponents says what ours does")
    files = [_checkpoint(k).save(tmp_path / f"{k}.safetensors") for k in range(1, case["n_checkpoints"] + 1)]
    sigma_rel = case["sigma_rel"]
    if sigma_rel is not None:
        # Its power form takes nothing of the first file (spec/training.md 8.1, 16): ours without that file is the same.
        files = files[1:]
    last = case["beta"] if case["beta2"] is None else case["beta2"]
    found = _average(files, case["beta"], last, sigma_rel)

    torch.testing.assert_close(found.down, torch.full_like(found.down, case["merged_down"]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.up, torch.full_like(found.up, case["merged_up"]), rtol=1e-5, atol=1e-6)


@_each("ema")
def test_train_post_hoc_ema_decays_equal_the_reference(case: dict[str, Any]) -> None:
    if "error" in case:
        pytest.skip("the reference crashes there")
    count, decays = case["n_checkpoints"], case["betas_rounded4"]

    if case["sigma_rel"] is not None:
        assert decays[0] == 0  # the defect: the first file is dropped
        assert power_decays(count - 1, case["sigma_rel"]) == pytest.approx(decays[1:], abs=5e-5)
    else:
        last = case["beta"] if case["beta2"] is None else case["beta2"]
        assert linear_decays(count, case["beta"], last) == pytest.approx(decays, abs=5e-5)


def _average(files: list[Path], first: float | None, last: float | None, sigma_rel: float | None) -> LoRAWeights:
    if len(files) == 1:
        (weights,) = LoRAFile.load(files[0]).modules.values()
    elif sigma_rel is not None:
        (weights,) = LoRAFile.average(files, sigma_rel=sigma_rel).modules.values()
    else:
        assert first is not None
        assert last is not None
        (weights,) = LoRAFile.average(files, decay=(first, last)).modules.values()
    assert isinstance(weights, LoRAWeights)
    return weights


def _checkpoint(k: int) -> LoRAFile:
    """Return what the cases were made with: down = k, up = k^2 / 10."""
    weights = LoRAWeights(torch.full((2, 3), float(k)), torch.full((4, 2), k * k / 10), torch.tensor(1.0))
    return LoRAFile(modules={"blocks.0.q": weights}, layout="reference")
